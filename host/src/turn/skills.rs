//! Named skills: instructions that a message can ask for.

use std::path::PathBuf;

use async_trait::async_trait;

/// Largest skill file.
const SKILL_BYTES_MAX: u64 = 256 * 1024;

/// Instructions that are added to the prompt of one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    /// The name it was asked for by.
    pub name: String,
    /// The instructions, Markdown.
    pub body: String,
}

/// Finds skills by name.
#[async_trait]
pub trait SkillResolver: Send + Sync + 'static {
    /// The skill, or `None` when there is none of that name. `name` is `[A-Za-z0-9_-]{1,128}`; that has been checked.
    async fn resolve(&self, name: &str) -> Option<Skill>;
}

/// Skills as files: `FOLDER/NAME/SKILL.md`, the first folder that has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SkillFolders(pub(crate) Vec<PathBuf>);

#[async_trait]
impl SkillResolver for SkillFolders {
    async fn resolve(&self, name: &str) -> Option<Skill> {
        for folder in &self.0 {
            let path = folder.join(name).join("SKILL.md");
            let Ok(metadata) = tokio::fs::metadata(&path).await else { continue };
            if metadata.len() > SKILL_BYTES_MAX {
                tracing::warn!(path = %path.display(), max = SKILL_BYTES_MAX, "a skill file is too large and is left out");
                continue;
            }
            match tokio::fs::read_to_string(&path).await {
                Ok(text) => {
                    let body = without_front_matter(&text).trim().to_owned();
                    return Some(Skill { name: name.to_owned(), body });
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "a skill file cannot be read"),
            }
        }
        None
    }
}

/// The text without a leading block between two `---` lines.
fn without_front_matter(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else { return text };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        at += line.len();
        if line.trim_end() == "---" {
            return &rest[at..];
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_left_out_and_a_rule_is_not_taken_for_it() {
        assert_eq!(without_front_matter("---\nname: x\n---\nBody\n---\nmore"), "Body\n---\nmore");
        assert_eq!(without_front_matter("---\r\nname: x\r\n---\r\nBody"), "Body");
        assert_eq!(without_front_matter("---\nnever closed"), "---\nnever closed");
        assert_eq!(without_front_matter("Body"), "Body");
    }
}
