//! An author's loop: what is saved is built, loaded and can be called.

use std::fs;

use crate::run::Place;

#[cfg(unix)]
#[test]
fn what_is_saved_is_built_and_loaded_and_what_does_not_build_changes_nothing() {
    let place = Place::new();
    place.jackfield(["plugins", "new", "loop-about"]).ok();
    let source = place.path().join("loop-about/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let call = |place: &Place| {
        let chat = place.jackfield(["chat", r#"/tool loop_about_greet {"name":"you"}"#]);
        format!("{}{}", chat.output, chat.errors)
    };

    let mut dev = place.start(["dev", "loop-about", "--port", "0"]);
    let example = dev.says("/tool");
    assert!(example.contains(r#"/tool loop_about_greet {"name":"text"}"#), "{example}");
    assert!(call(&place).contains("hello you"));

    fs::write(&source, "this is no Rust").unwrap();
    dev.says("it does not build; the plugin that ran goes on running");
    assert!(call(&place).contains("hello you"));

    fs::write(&source, text.replace(r#"{} {}", self.greeting"#, r#"{}, dear {}", self.greeting"#)).unwrap();
    dev.says("/tool");
    assert!(call(&place).contains("hello, dear you"));
    dev.stop();
}

#[test]
fn a_folder_without_a_plugin_is_told() {
    let place = Place::new();
    let said = place.jackfield(["dev", "."]).fails_with(1);
    assert!(said.contains("no project that cargo understands"), "{said}");
}
