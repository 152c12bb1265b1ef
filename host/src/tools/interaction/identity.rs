//! The form that asks who the user is: name, email address, telephone number. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Complaints, not_an_object, text_in, type_of};

/// Longest email address that mail servers take, in bytes.
const EMAIL_BYTES_MAX: usize = 254;
/// Digits of an international number.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

const IS_REQUIRED: &str = "is required";
const BAD_EMAIL: &str = "must be a valid email address";
const BAD_PHONE: &str = "must be a telephone number with its country code, such as +49 30 123456";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum IdentityKey {
    /// What to call the user.
    Name,
    /// An email address.
    Email,
    /// A telephone number.
    Phone,
}

impl IdentityKey {
    const ALL: [IdentityKey; 3] = [IdentityKey::Name, IdentityKey::Email, IdentityKey::Phone];

    fn as_str(self) -> &'static str {
        match self {
            IdentityKey::Name => "name",
            IdentityKey::Email => "email",
            IdentityKey::Phone => "phone",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|key| key.as_str() == text);
        found.ok_or_else(|| format!("the keys are name, email and phone, not {text:?}"))
    }
}

/// One field as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct IdentityField {
    key: IdentityKey,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

/// The form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct IdentityForm {
    /// In the order they were asked for; each key once.
    fields: Vec<IdentityField>,
}

/// What the user filled in, in its normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct IdentityValues {
    /// Trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Its domain is in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// `+` and digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone: Option<String>,
}

impl IdentityForm {
    /// The form that a conversation is checked against in which nobody asked for certain fields.
    pub(super) fn open() -> Self {
        let field = |key| IdentityField { key, required: false, label: None };
        Self { fields: IdentityKey::ALL.map(field).into() }
    }

    /// Reads what the model asks for. Its own normal form reads back as the same form.
    pub(super) fn read(arguments: &Map<String, Value>) -> Result<Self, String> {
        let fields = match arguments.get("fields") {
            Some(Value::Array(fields)) if !fields.is_empty() => fields,
            Some(Value::Array(_)) | None => return Err("fields must name at least one of name, email, phone".into()),
            Some(other) => return Err(format!("fields must be a list, it is {}", type_of(other))),
        };
        let mut form = Self { fields: Vec::with_capacity(fields.len()) };
        for (index, field) in fields.iter().enumerate() {
            let field = IdentityField::read(field).map_err(|fault| format!("fields[{index}]: {fault}"))?;
            if form.fields.iter().any(|other| other.key == field.key) {
                return Err(format!("fields[{index}]: {} is asked for twice", field.key.as_str()));
            }
            form.fields.push(field);
        }
        Ok(form)
    }

    /// Checks what the user filled in. `chars_max` bounds the name. Keys that were not asked for are ignored.
    pub(super) fn check(&self, values: &Value, chars_max: usize, wrong: &mut Complaints) -> IdentityValues {
        let mut accepted = IdentityValues::default();
        let Some(values) = values.as_object() else {
            wrong.add("values", not_an_object(values));
            return accepted;
        };
        for IdentityField { key, required, .. } in &self.fields {
            let field = key.as_str();
            let text = match values.get(field) {
                None | Some(Value::Null) => "",
                Some(Value::String(text)) => text.trim(),
                Some(_) => {
                    wrong.add(field, if *key == IdentityKey::Email { BAD_EMAIL } else { "must be text" });
                    continue;
                }
            };
            if text.is_empty() {
                if *required {
                    wrong.add(field, IS_REQUIRED);
                }
                continue;
            }
            match key {
                IdentityKey::Name => match text_in(text, chars_max) {
                    Ok(name) => accepted.name = Some(name),
                    Err(fault) => wrong.add(field, fault),
                },
                IdentityKey::Email => match email(text) {
                    Some(email) => accepted.email = Some(email),
                    None => wrong.add(field, BAD_EMAIL),
                },
                IdentityKey::Phone => match phone(text) {
                    Some(phone) => accepted.phone = Some(phone),
                    None => wrong.add(field, BAD_PHONE),
                },
            }
        }
        if wrong.is_empty() && accepted == IdentityValues::default() {
            wrong.add("values", "fill in at least one field");
        }
        accepted
    }
}

impl IdentityField {
    /// A key alone, which is then required, or an object.
    fn read(field: &Value) -> Result<Self, String> {
        let map = match field {
            Value::String(key) => {
                return Ok(Self { key: IdentityKey::parse(key)?, required: true, label: None });
            }
            Value::Object(map) => map,
            other => return Err(format!("expected a key or an object with a key, got {}", type_of(other))),
        };
        let key = match map.get("key") {
            Some(Value::String(key)) => IdentityKey::parse(key)?,
            _ => return Err("key must be name, email or phone".to_owned()),
        };
        let required = match map.get("required") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(required)) => *required,
            Some(other) => return Err(format!("required must be true or false, it is {}", type_of(other))),
        };
        let label = match map.get("label") {
            None | Some(Value::Null) => None,
            Some(Value::String(label)) => Some(label.trim().to_owned()).filter(|label| !label.is_empty()),
            Some(other) => return Err(format!("label must be text, it is {}", type_of(other))),
        };
        Ok(Self { key, required, label })
    }
}

/// The address with its domain in lower case; `None` when it cannot be one. What stands before the `@` is the mail
/// server's own business.
fn email(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let dotted = domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.');
    let clean = !domain.contains('@') && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    let fits = !local.is_empty() && dotted && clean && text.len() <= EMAIL_BYTES_MAX;
    fits.then(|| format!("{local}@{}", domain.to_lowercase()))
}

/// The number as `+` and digits. Without a country code, ten digits, and eleven that start with 1, are a number of
/// North America.
fn phone(text: &str) -> Option<String> {
    let is_separator = |letter: char| letter.is_whitespace() || matches!(letter, '-' | '.' | '(' | ')' | '‐'..='―');
    let bare: String = text.chars().filter(|letter| !is_separator(*letter)).collect();
    let (is_international, digits) = match bare.strip_prefix('+') {
        Some(digits) => (true, digits),
        None => (false, &*bare),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match (is_international, digits.len()) {
        (true, count) if PHONE_DIGITS.contains(&count) && !digits.starts_with('0') => Some(format!("+{digits}")),
        (false, 10) => Some(format!("+1{digits}")),
        (false, 11) if digits.starts_with('1') => Some(format!("+{digits}")),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn form(fields: Value) -> Result<IdentityForm, String> {
        IdentityForm::read(json!({ "fields": fields }).as_object().unwrap())
    }

    fn check(fields: Value, values: Value) -> Result<Value, Vec<(String, String)>> {
        let mut wrong = Complaints::default();
        let accepted = form(fields).unwrap().check(&values, 100, &mut wrong);
        let pair = |error: &crate::protocol::event::FieldError| (error.field.clone(), error.message.to_string());
        match wrong.into_errors() {
            None => Ok(json!(accepted)),
            Some(errors) => Err(errors.iter().map(pair).collect()),
        }
    }

    fn faults(pairs: &[(&str, &str)]) -> Result<Value, Vec<(String, String)>> {
        Err(pairs.iter().map(|(field, message)| ((*field).to_owned(), (*message).to_owned())).collect())
    }

    #[test]
    fn a_form_is_normalised_in_the_order_it_was_asked_for() {
        let asked =
            json!([{"key": "phone", "label": " Mobile "}, "email", {"key": "name", "required": false, "label": null}]);
        let form = form(asked).unwrap();
        let normal = json!({"fields": [
            {"key": "phone", "required": true, "label": "Mobile"}, {"key": "email", "required": true},
            {"key": "name", "required": false},
        ]});
        assert_eq!(json!(form), normal);
        assert_eq!(IdentityForm::read(normal.as_object().unwrap()), Ok(form));
    }

    #[test]
    fn what_cannot_be_asked_for_is_said() {
        for (fields, expected) in [
            (json!([]), "at least one"),
            (json!("email"), "a list, it is a JSON string"),
            (json!(["fax"]), "fields[0]: the keys are name, email and phone, not \"fax\""),
            (json!(["name", {"key": "email", "required": "yes"}]), "fields[1]: required must be true or false"),
            (json!(["email", {"key": "email"}]), "fields[1]: email is asked for twice"),
            (json!([7]), "fields[0]: expected a key"),
            (json!([{"label": "x"}]), "fields[0]: key must be"),
            (json!([{"key": "name", "label": []}]), "label must be text"),
        ] {
            let error = form(fields).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(IdentityForm::read(&Map::new()).is_err());
    }

    #[test]
    fn good_values_come_back_in_their_normal_form() {
        let asked = json!(["name", "email", "phone"]);
        let given =
            json!({"name": " Bo ", "email": " Bo.B+x@Mail.EXAMPLE.com ", "phone": "(555) 123-45.67", "other": 1});
        let normal = json!({"name": "Bo", "email": "Bo.B+x@mail.example.com", "phone": "+15551234567"});
        assert_eq!(check(asked, given), Ok(normal));
        let optional = json!([{"key": "name", "required": false}, "email"]);
        assert_eq!(
            check(optional, json!({"name": "  ", "email": "a@b.c", "phone": "nonsense"})),
            Ok(json!({"email": "a@b.c"}))
        );
    }

    #[test]
    fn each_field_is_complained_about_by_its_own_name() {
        let asked = || json!(["email", "phone", "name"]);
        assert_eq!(
            check(asked(), json!({"email": "nope", "phone": "12", "name": null})),
            faults(&[("email", BAD_EMAIL), ("phone", BAD_PHONE), ("name", IS_REQUIRED)])
        );
        assert_eq!(
            check(asked(), json!({"email": 1, "phone": {}, "name": [null]})),
            faults(&[("email", BAD_EMAIL), ("phone", "must be text"), ("name", "must be text")])
        );
        let long = json!({"email": "a@b.c", "phone": "+4930123456", "name": "x".repeat(101)});
        assert_eq!(check(asked(), long), faults(&[("name", "must have at most 100 characters, it has 101")]));
        let optional = json!([{"key": "name", "required": false}]);
        assert_eq!(check(optional.clone(), json!({"name": null})), faults(&[("values", "fill in at least one field")]));
        for values in [json!(null), json!([]), json!("x"), json!(3)] {
            let wrong = check(optional.clone(), values).unwrap_err();
            assert!(wrong[0].0 == "values" && wrong[0].1.contains("must be an object"), "{wrong:?}");
        }
    }

    #[test]
    fn email_addresses() {
        for good in ["a@b.c", "a.b@c.d.e", "\"odd\"@x.y", "ä@ö.ü"] {
            assert!(email(good).is_some(), "{good}");
        }
        for bad in ["", "a", "a@", "@b.c", "a@b", "a@.b", "a@b.", "a@b@c.d", "a b@c.d", "a@b .c", "a\u{0}@b.c"] {
            assert_eq!(email(bad), None, "{bad}");
        }
        assert_eq!(email(&format!("{}@b.c", "a".repeat(251))), None);
    }

    #[test]
    fn telephone_numbers() {
        for (given, normal) in [
            ("+49 (0)30", None),
            ("+49 30 123456", Some("+4930123456")),
            ("+1.555.123.4567", Some("+15551234567")),
            ("555\u{a0}123\u{2013}4567", Some("+15551234567")),
            ("1 555 123 4567", Some("+15551234567")),
            ("2 555 123 4567", None),
            ("+0123456789", None),
            ("+1234567", None),
            ("+12345678", Some("+12345678")),
            ("+123456789012345", Some("+123456789012345")),
            ("+1234567890123456", None),
            ("030 123456", None),
            ("++4930123456", None),
            ("+", None),
            ("", None),
            ("call me", None),
            ("٥٥٥١٢٣٤٥٦٧", None),
        ] {
            assert_eq!(phone(given).as_deref(), normal, "{given}");
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            Just(json!("a@b.c")),
            Just(json!("5551234567"))
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("name|email|phone|fields|key", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_crashes_the_check_and_what_passes_passes_again(arguments in anything(), values in anything()) {
            if let Some(map) = arguments.as_object() {
                let _ = IdentityForm::read(map);
            }
            let form = IdentityForm::open();
            let mut wrong = Complaints::default();
            let accepted = form.check(&values, 100, &mut wrong);
            if wrong.is_empty() {
                let mut again = Complaints::default();
                prop_assert_eq!(form.check(&json!(accepted), 100, &mut again), accepted);
                prop_assert!(again.is_empty());
            }
        }
    }
}
