//! A folder for each conversation that plugins share and nobody else enters. It is made when it is first asked for, and
//! removed when the conversation ends or the server does.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jackfield_plugin_abi::{AbiError, kind};
use uuid::Uuid;

use crate::ids::ConversationId;

/// The folders of one server.
pub(super) struct Workspaces {
    /// Below it each conversation has its own.
    base: PathBuf,
    folders_max: usize,
    /// The conversations that have one. Held while a folder is made or removed.
    made: Mutex<BTreeSet<ConversationId>>,
}

impl Workspaces {
    pub(super) fn new(base: PathBuf, id: Uuid, folders_max: usize) -> Self {
        Self { base: base.join(format!("jackfield-workspaces-{id}")), folders_max, made: Mutex::default() }
    }

    /// The folder of a conversation.
    pub(super) fn of(&self, conversation_id: &str) -> Result<PathBuf, AbiError> {
        let Some(conversation) = ConversationId::parse(conversation_id) else {
            let text = "expected the id of a conversation, as a call's info has it; a call without one has no folder";
            return Err(AbiError::new(kind::INVALID_ARGUMENTS, text));
        };
        let folder = self.folder(conversation);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.contains(&conversation) {
            return Ok(folder);
        }
        if made.len() >= self.folders_max {
            let max = self.folders_max;
            let text = format!("{max} conversations have a folder already (limit plugin_workspaces); try again later");
            return Err(AbiError::new(kind::UNAVAILABLE, text));
        }
        make(&self.base).and_then(|()| make(&folder)).map_err(|error| {
            AbiError::new(kind::FAILED, format!("the folder of the conversation cannot be made: {error}"))
        })?;
        made.insert(conversation);
        Ok(folder)
    }

    /// Removes the folder of a conversation, if it has one.
    pub(super) fn remove(&self, conversation_id: &str) {
        let Some(conversation) = ConversationId::parse(conversation_id) else { return };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.remove(&conversation) {
            remove(&self.folder(conversation));
        }
    }

    fn folder(&self, conversation: ConversationId) -> PathBuf {
        self.base.join(conversation.to_string())
    }
}

impl Drop for Workspaces {
    fn drop(&mut self) {
        if !self.made.get_mut().unwrap_or_else(PoisonError::into_inner).is_empty() || self.base.exists() {
            remove(&self.base);
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        // The base is made once, and its name is this server's alone.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "the folder of a conversation was not removed");
    }
}
