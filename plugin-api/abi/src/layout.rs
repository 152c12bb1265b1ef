//! The frozen layout as text, so that a change of it is seen in a review and not in a crash.

use std::{collections::HashSet, fmt::Write};

use abi_stable::{
    StableAbi,
    std_types::utypeid::UTypeId,
    type_layout::{TLData, TLField, TypeLayout},
};

use crate::PluginRef;

/// All types of this crate that cross, with sizes, fields and functions in their order. A generic type is there once for
/// each type it is used with.
///
/// Sizes are those of the machine this runs on. Below 1.0's own entries only the ends of vtables and of the module may
/// grow; a test compares this with the text that was committed.
pub fn layout_dump() -> String {
    let mut text = String::new();
    visit(<PluginRef as StableAbi>::LAYOUT, &mut HashSet::new(), &mut text);
    text
}

/// Writes a type and then those it names. A type of another crate is walked through, but not written down.
fn visit(layout: &'static TypeLayout, seen: &mut HashSet<UTypeId>, text: &mut String) {
    if !seen.insert(layout.get_utypeid()) {
        return;
    }
    if layout.package().as_str() == env!("CARGO_PKG_NAME") {
        text.push_str(&describe(layout));
    }

    let fields = layout.get_fields();
    for field in fields.iter().flat_map(|fields| fields.iter()).chain(layout.phantom_fields().iter()) {
        visit(field.layout(), seen, text);
        for function in field.function_range().iter() {
            for parameter in function.param_type_layouts.iter() {
                visit(parameter(), seen, text);
            }
            if let Some(answer) = function.return_type_layout() {
                visit(answer(), seen, text);
            }
        }
    }
}

fn describe(layout: &'static TypeLayout) -> String {
    let mut text = format!(
        "{}: {} bytes, aligned to {}, {:?}",
        layout.full_type(),
        layout.size(),
        layout.alignment(),
        layout.repr_attr()
    );
    match layout.data() {
        TLData::PrefixType(prefix) => {
            text.push('\n');
            for (index, field) in prefix.fields.iter().enumerate() {
                if index == usize::from(prefix.first_suffix_field) {
                    text.push_str("    -- may be missing on an older side --\n");
                }
                describe_field(&mut text, &field);
            }
        }
        TLData::Enum(variants) => {
            let _ = writeln!(text, ", variants {}", variants.variant_names.as_str());
            variants.fields.iter().for_each(|field| describe_field(&mut text, &field));
        }
        TLData::Struct { fields } | TLData::Union { fields } => {
            text.push('\n');
            fields.iter().for_each(|field| describe_field(&mut text, &field));
        }
        TLData::Primitive(_) | TLData::Opaque => text.push('\n'),
    }
    text
}

fn describe_field(text: &mut String, field: &TLField) {
    if field.is_function() {
        for function in field.function_range().iter() {
            // Lifetimes are written on a line of their own, and no machine sees them.
            let function = function.to_string();
            let function = function.lines().next().unwrap_or_default().trim_end();
            let _ = writeln!(text, "    {}: {function}", field.name());
        }
    } else {
        let _ = writeln!(text, "    {}: {}", field.name(), field.full_type().to_string().trim_end());
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    /// When this fails because something was appended below a mark, look that nothing else changed and replace the
    /// file. When anything else changed, plugins in use would stop loading: change it back.
    #[test]
    fn the_layout_is_the_committed_one() {
        let (found, committed) = (super::layout_dump(), include_str!("../layout.txt"));
        let difference = found.lines().zip(committed.lines()).find(|(found, committed)| found != committed);
        assert!(found == committed, "first difference (found, committed): {difference:?}\nthe whole layout:\n{found}");
    }
}
