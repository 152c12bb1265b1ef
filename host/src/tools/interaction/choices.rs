//! The form that asks the user to choose. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Complaints, not_an_object, text_in, type_of};

/// Questions of one form.
const QUESTIONS_MAX: usize = 4;
/// Options of one question.
const OPTIONS: std::ops::RangeInclusive<usize> = 2..=4;
/// Characters of a question's short name.
const HEADER_CHARS_MAX: usize = 12;

/// The form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ChoicesForm {
    questions: Vec<Question>,
}

/// One question as it is shown. Clients expect every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    question: String,
    /// Its short name, by which answers refer to it.
    header: String,
    options: Vec<ChoiceOption>,
    multi_select: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ChoiceOption {
    label: String,
    description: String,
}

/// What the user chose, in the order of the questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ChoicesValues {
    answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Answer {
    header: String,
    /// Labels, in the order of the question.
    options: Vec<String>,
    /// What the user wrote instead, or besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
}

impl ChoicesForm {
    /// Reads what the model asks. Its own normal form reads back as the same form.
    pub(super) fn read(arguments: &Map<String, Value>) -> Result<Self, String> {
        let questions = list(arguments, "questions")?;
        if questions.is_empty() || questions.len() > QUESTIONS_MAX {
            return Err(format!("questions must hold 1 to {QUESTIONS_MAX} questions, it holds {}", questions.len()));
        }
        let mut form = Self { questions: Vec::with_capacity(questions.len()) };
        for (index, question) in questions.iter().enumerate() {
            let question = Question::read(question).map_err(|fault| format!("questions[{index}]: {fault}"))?;
            if form.questions.iter().any(|other| other.header == question.header) {
                return Err(format!("questions[{index}]: the header {:?} is used twice", question.header));
            }
            form.questions.push(question);
        }
        Ok(form)
    }

    /// Checks what the user chose. `chars_max` bounds a text of their own.
    pub(super) fn check(&self, values: &Value, chars_max: usize, wrong: &mut Complaints) -> ChoicesValues {
        let mut accepted = ChoicesValues::default();
        let Some(values) = values.as_object() else {
            wrong.add("values", not_an_object(values));
            return accepted;
        };
        let empty = Vec::new();
        let answers = match values.get("answers") {
            Some(Value::Array(answers)) => answers,
            // As good as no answer, so every question says that it has none.
            None | Some(Value::Null) => &empty,
            Some(other) => {
                wrong.add("answers", format!("must be a list of answers, it is {}", type_of(other)));
                return accepted;
            }
        };
        self.complain_of_strangers(answers, wrong);
        for question in &self.questions {
            let mine: Vec<&Map<String, Value>> = answers
                .iter()
                .filter_map(Value::as_object)
                .filter(|answer| answer.get("header").and_then(Value::as_str).map(str::trim) == Some(&question.header))
                .collect();
            let answer = match mine[..] {
                [] => Err("is not answered".to_owned()),
                [answer] => question.check(answer, chars_max),
                _ => Err("is answered twice".to_owned()),
            };
            match answer {
                Ok(answer) => accepted.answers.push(answer),
                Err(fault) => wrong.add(&*question.header, fault),
            }
        }
        accepted
    }

    /// Answers to nothing that was asked.
    fn complain_of_strangers(&self, answers: &[Value], wrong: &mut Complaints) {
        for (index, answer) in answers.iter().enumerate() {
            match answer.get("header").and_then(Value::as_str).map(str::trim) {
                Some(header) if self.questions.iter().any(|question| question.header == header) => {}
                Some(header) if !header.is_empty() => wrong.add(header, "is not one of the questions"),
                _ => wrong.add("answers", format!("entry {index} must name the header of its question")),
            }
        }
    }
}

impl Question {
    fn read(question: &Value) -> Result<Self, String> {
        let Value::Object(map) = question else {
            return Err(format!("expected an object with question, header and options, got {}", type_of(question)));
        };
        let header = text(map, "header")?;
        if header.chars().count() > HEADER_CHARS_MAX {
            return Err(format!("the header {header:?} must have at most {HEADER_CHARS_MAX} characters"));
        }
        let options = list(map, "options")?;
        if !OPTIONS.contains(&options.len()) {
            let (least, most) = (OPTIONS.start(), OPTIONS.end());
            return Err(format!("options must hold {least} to {most} options, it holds {}", options.len()));
        }
        let options: Vec<ChoiceOption> = options.iter().map(ChoiceOption::read).collect::<Result<_, _>>()?;
        for (index, option) in options.iter().enumerate() {
            if options[..index].iter().any(|other| other.label == option.label) {
                return Err(format!("the option {:?} is offered twice", option.label));
            }
        }
        let multi_select = match map.get("multiSelect") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(multi_select)) => *multi_select,
            Some(other) => return Err(format!("multiSelect must be true or false, it is {}", type_of(other))),
        };
        Ok(Self { question: text(map, "question")?, header, options, multi_select })
    }

    fn check(&self, answer: &Map<String, Value>, chars_max: usize) -> Result<Answer, String> {
        let mut chosen = Vec::new();
        match answer.get("options") {
            None | Some(Value::Null) => {}
            Some(Value::Array(labels)) => {
                for label in labels {
                    let Some(label) = label.as_str().map(str::trim) else {
                        return Err(format!("options must be labels, one of them is {}", type_of(label)));
                    };
                    if !self.options.iter().any(|option| option.label == label) {
                        return Err(format!("has no option {:?}; it offers {}", short(label), self.labels()));
                    }
                    chosen.push(label);
                }
            }
            Some(other) => return Err(format!("options must be a list of labels, it is {}", type_of(other))),
        }
        let other = match answer.get("other") {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text.trim(),
            Some(other) => return Err(format!("other must be text, it is {}", type_of(other))),
        };
        let other = if other.is_empty() { None } else { Some(text_in(other, chars_max)?) };
        // In the order of the question, and each once.
        let offered = self.options.iter().map(|option| &option.label);
        let options: Vec<String> = offered.filter(|label| chosen.contains(&label.as_str())).cloned().collect();
        match options.len() + usize::from(other.is_some()) {
            0 => Err("needs one of its options, or a text of your own".to_owned()),
            2.. if !self.multi_select => Err("takes only one answer".to_owned()),
            _ => Ok(Answer { header: self.header.clone(), options, other }),
        }
    }

    fn labels(&self) -> String {
        self.options.iter().map(|option| option.label.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl ChoiceOption {
    /// A label alone, or an object.
    fn read(option: &Value) -> Result<Self, String> {
        let (label, description) = match option {
            Value::String(label) => (label.trim().to_owned(), String::new()),
            Value::Object(map) => {
                let description = match map.get("description") {
                    None | Some(Value::Null) => "",
                    Some(Value::String(description)) => description.trim(),
                    Some(other) => return Err(format!("an option's description is {}, not text", type_of(other))),
                };
                (text(map, "label")?, description.to_owned())
            }
            other => return Err(format!("an option is a label or an object with a label, not {}", type_of(other))),
        };
        if label.is_empty() {
            return Err("an option's label is blank".to_owned());
        }
        Ok(Self { label, description })
    }
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], String> {
    match map.get(key) {
        Some(Value::Array(entries)) => Ok(entries),
        Some(other) => Err(format!("{key} must be a list, it is {}", type_of(other))),
        None => Err(format!("{key} is missing")),
    }
}

/// A text that says something, trimmed.
fn text(map: &Map<String, Value>, key: &str) -> Result<String, String> {
    match map.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Some(Value::String(_)) => Err(format!("{key} is blank")),
        Some(other) => Err(format!("{key} must be text, it is {}", type_of(other))),
        None => Err(format!("{key} is missing")),
    }
}

/// As much of a foreign label as an error repeats.
fn short(label: &str) -> String {
    crate::protocol::objects::shorten(label, 40)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(questions: Value) -> Result<ChoicesForm, String> {
        ChoicesForm::read(json!({ "questions": questions }).as_object().unwrap())
    }

    fn two() -> ChoicesForm {
        read(json!([
            {"question": "Which size?", "header": "Size", "options": ["S", {"label": "L", "description": "large"}]},
            {"question": "Which extras?", "header": "Extras", "options": ["Bag", "Card", "Note"], "multiSelect": true},
        ]))
        .unwrap()
    }

    fn check(values: Value) -> Result<Value, Vec<(String, String)>> {
        let mut wrong = Complaints::default();
        let accepted = two().check(&values, 20, &mut wrong);
        match wrong.into_errors() {
            None => Ok(json!(accepted)),
            Some(errors) => Err(errors.into_iter().map(|error| (error.field, error.message.into_owned())).collect()),
        }
    }

    #[test]
    fn a_form_is_normalised() {
        let normal = json!({"questions": [
            {"question": "Which size?", "header": "Size", "multiSelect": false,
             "options": [{"label": "S", "description": ""}, {"label": "L", "description": "large"}]},
            {"question": "Which extras?", "header": "Extras", "multiSelect": true,
             "options": [{"label": "Bag", "description": ""}, {"label": "Card", "description": ""}, {"label": "Note", "description": ""}]},
        ]});
        assert_eq!(json!(two()), normal);
        assert_eq!(ChoicesForm::read(normal.as_object().unwrap()), Ok(two()));
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let question = |header: &str, options: Value| json!({"question": "Q?", "header": header, "options": options});
        for (questions, expected) in [
            (json!([]), "1 to 4 questions, it holds 0"),
            (json!(null), "questions must be a list, it is a JSON null"),
            (Value::Array(vec![question("H", json!(["a", "b"])); 5]), "it holds 5"),
            (
                json!([question("H", json!(["a", "b"])), question("H", json!(["a", "b"]))]),
                "questions[1]: the header \"H\" is used twice",
            ),
            (json!([question("thirteen char", json!(["a", "b"]))]), "at most 12 characters"),
            (json!([question(" ", json!(["a", "b"]))]), "header is blank"),
            (json!([question("H", json!(["a"]))]), "2 to 4 options, it holds 1"),
            (json!([question("H", json!(["a", "b", "c", "d", "e"]))]), "it holds 5"),
            (json!([question("H", json!(["a", " a "]))]), "offered twice"),
            (json!([question("H", json!(["a", ""]))]), "label is blank"),
            (json!([question("H", json!(["a", 1]))]), "not a JSON integer"),
            (json!([{"header": "H", "options": ["a", "b"]}]), "question is missing"),
            (json!(["Q?"]), "expected an object"),
        ] {
            let error = read(questions).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn good_answers_come_back_in_the_order_of_the_questions() {
        let given = json!({"answers": [
            {"header": "Extras", "options": ["Note", "Bag", "Note"], "other": " a bow "},
            {"header": "Size", "options": ["L"], "other": null},
        ]});
        let normal = json!({"answers": [
            {"header": "Size", "options": ["L"]}, {"header": "Extras", "options": ["Bag", "Note"], "other": "a bow"},
        ]});
        assert_eq!(check(given), Ok(normal));
        let other = json!({"answers": [{"header": "Size", "other": "M"}, {"header": "Extras", "options": ["Bag"]}]});
        assert!(check(other).is_ok());
    }

    #[test]
    fn each_fault_is_told_under_its_questions_header() {
        let size = |answer: Value| {
            let mut answer = answer;
            answer["header"] = json!("Size");
            let mut wrong = check(json!({"answers": [answer, {"header": "Extras", "other": "x"}]})).unwrap_err();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            let (field, message) = wrong.remove(0);
            assert_eq!(field, "Size");
            message
        };
        assert_eq!(size(json!({})), "needs one of its options, or a text of your own");
        assert_eq!(size(json!({"options": [], "other": " "})), "needs one of its options, or a text of your own");
        assert_eq!(size(json!({"options": ["XL"]})), "has no option \"XL\"; it offers S, L");
        assert_eq!(size(json!({"options": ["S", "L"]})), "takes only one answer");
        assert_eq!(size(json!({"options": ["S"], "other": "M"})), "takes only one answer");
        assert_eq!(size(json!({"options": "S"})), "options must be a list of labels, it is a JSON string");
        assert_eq!(size(json!({"options": [null]})), "options must be labels, one of them is a JSON null");
        assert_eq!(size(json!({"other": 5})), "other must be text, it is a JSON integer");
        assert_eq!(size(json!({"other": "x".repeat(21)})), "must have at most 20 characters, it has 21");

        let unanswered =
            [("Size".to_owned(), "is not answered".to_owned()), ("Extras".to_owned(), "is not answered".to_owned())];
        for values in [json!({}), json!({"answers": null}), json!({"answers": []})] {
            assert_eq!(check(values), Err(unanswered.to_vec()));
        }
        let twice = json!({"answers": [{"header": "Size", "other": "a"}, {"header": "Size", "other": "b"}, null, {"header": "?"}]});
        let fields: Vec<String> = check(twice).unwrap_err().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["answers", "?", "Size", "Extras"]);
        for values in [json!(null), json!("S"), json!([]), json!({"answers": {}})] {
            assert!(check(values).is_err());
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(S|L|Size|Extras|Bag|.{0,8})".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("answers|header|options|other|questions|question|label", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_crashes_the_check_and_what_passes_passes_again(arguments in anything(), values in anything()) {
            if let Some(map) = arguments.as_object() {
                let _ = ChoicesForm::read(map);
            }
            let mut wrong = Complaints::default();
            let accepted = two().check(&values, 20, &mut wrong);
            if wrong.is_empty() {
                let mut again = Complaints::default();
                prop_assert_eq!(two().check(&json!(accepted), 20, &mut again), accepted);
                prop_assert!(again.is_empty());
            }
        }
    }
}
