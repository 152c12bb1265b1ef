//! JSON Schemas (draft 2020-12) of every frame, made from the types that read and write them. They are strict: an
//! object has the keys that are listed and no other, and a key that may be absent is never null.
//!
//! A session sees more than the published protocol only when its own create frame declared an extension in `supports`.
//! So every event has a schema without extensions, and those whose frames an extension changes have more of them, named
//! after it: `stream_token`, `stream_token.resume`.

mod actions;
mod events;
mod object;
mod strict;

#[cfg(test)]
pub(in crate::protocol) mod tests;

use std::sync::LazyLock;

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use super::capabilities::{RESUME, TOOL_PROGRESS};

/// The dialect of the schemas.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Which extensions of the protocol a session has declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `resume`: numbered events, and the turn's id.
    pub resume: bool,
    /// `tool_progress`: progress chunks.
    pub tool_progress: bool,
}

impl Extensions {
    /// All combinations, the plain protocol first.
    pub const ALL: [Extensions; 4] = [
        Extensions { resume: false, tool_progress: false },
        Extensions { resume: true, tool_progress: false },
        Extensions { resume: false, tool_progress: true },
        Extensions { resume: true, tool_progress: true },
    ];

    /// What a create frame writes in `supports` to get them.
    pub fn flags(self) -> Vec<&'static str> {
        let resume = self.resume.then_some(RESUME);
        resume.into_iter().chain(self.tool_progress.then_some(TOOL_PROGRESS)).collect()
    }

    /// The name of a schema under these extensions.
    pub fn name(self, kind: &str) -> String {
        std::iter::once(kind).chain(self.flags()).collect::<Vec<_>>().join(".")
    }
}

/// Who writes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    Action,
    /// The server.
    Event,
}

/// The schema of one kind of frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameSchema {
    /// The `action` or the `type` of the frame, `action` or `event` for all of them, then the extensions.
    pub name: String,
    /// Who writes such a frame.
    pub direction: Direction,
    /// What a session has to declare to see such frames.
    pub extensions: Extensions,
    /// The schema; a document of its own.
    pub schema: Value,
}

/// The schemas of all frames: first those of any action and any event, then one for each kind.
pub fn schemas() -> &'static [FrameSchema] {
    static SCHEMAS: LazyLock<Vec<FrameSchema>> = LazyLock::new(make);
    &SCHEMAS
}

fn make() -> Vec<FrameSchema> {
    let mut generator = generator();
    let mut single = Vec::new();
    for (name, schema) in actions::all() {
        let extensions = Extensions { resume: name == "resume_turn", tool_progress: false };
        single.push(FrameSchema { name: name.to_owned(), direction: Direction::Action, extensions, schema });
    }
    for extensions in Extensions::ALL {
        for (kind, schema) in events::changed_by(extensions, &mut generator) {
            let name = extensions.name(kind);
            single.push(FrameSchema { name, direction: Direction::Event, extensions, schema });
        }
    }
    let mut all = vec![FrameSchema {
        name: "action".to_owned(),
        direction: Direction::Action,
        extensions: Extensions::default(),
        schema: any_of("Any frame that a client sends.", actions::all()),
    }];
    all.extend(Extensions::ALL.map(|extensions| FrameSchema {
        name: extensions.name("event"),
        direction: Direction::Event,
        extensions,
        schema: any_of("Any frame that the server sends.", events::all(extensions, &mut generator)),
    }));
    all.extend(single);
    for frame in &mut all {
        finish(frame);
    }
    all
}

/// Everything in one document, without references to others.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.with(|settings| settings.inline_subschemas = true).into_generator()
}

fn any_of(description: &str, kinds: Vec<(&'static str, Value)>) -> Value {
    let references: Vec<Value> = kinds.iter().map(|(kind, _)| json!({"$ref": format!("#/$defs/{kind}")})).collect();
    let definitions: Map<String, Value> = kinds.into_iter().map(|(kind, schema)| (kind.to_owned(), schema)).collect();
    json!({"description": description, "oneOf": references, "$defs": definitions})
}

fn finish(frame: &mut FrameSchema) {
    strict::make_strict(&mut frame.schema);
    let keys = frame.schema.as_object_mut().expect("a frame is described by an object");
    keys.insert("$schema".to_owned(), json!(DIALECT));
    keys.insert("title".to_owned(), json!(frame.name));
}

/// A text that is not empty.
pub(super) fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1})
}

/// A text that only the server can read: its form is no promise.
pub(super) fn opaque(generator: &mut SchemaGenerator) -> Schema {
    text(generator)
}

/// A point in time: RFC 3339 with an offset.
pub(super) fn instant(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Any JSON object.
pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}
