//! What lies in the plugin folders, and what of it has settled. Pure, but for taking a file's stamp: it is told what a
//! scan found and when, and says which files to read and when to look again.
//!
//! ```text
//!   found ──▶ settling ── the same at two looks ──▶ ready ── read ──▶ usable, or refused
//!                ▲                                                        │
//!                └──────────── its stamp changed ─────────────────────────┘
//!   not found at two looks ──▶ forgotten
//! ```
//!
//! Rationale for two looks: a file that is written in place can look whole while it is half one version and half the
//! other.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    admit::Known,
    discover::{Discovery, Refused},
    private::PrivateCopy,
};

/// What changes when a file does. Equal stamps are taken for equal content until the file is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: jiff::Timestamp,
    bytes: u64,
    /// Device and number of the file, where the system has them: a rename puts another file in place.
    place: (u64, u64),
}

impl Stamp {
    /// The stamp of a file as it is now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = jiff::Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let place = (0, 0);
        Ok(Self { modified, bytes: metadata.len(), place })
    }
}

/// One look at the folders.
#[derive(Debug, Default)]
pub(super) struct Sighting {
    /// In the order of precedence.
    pub(super) files: Vec<(PathBuf, Seen)>,
}

/// One file at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It may be a plugin.
    File(Stamp),
    /// It may not, for this reason.
    Refused(String),
}

impl Sighting {
    /// Takes the stamps of what was discovered. A file that vanished meanwhile was not there.
    pub(super) fn of(discovery: Discovery) -> Self {
        let found = discovery.candidates.into_iter().filter_map(|path| match Stamp::of(&path) {
            Ok(stamp) => Some((path, Seen::File(stamp))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let reason = format!("it cannot be looked at: {error}");
                Some((path, Seen::Refused(reason)))
            }
        });
        let refused = discovery.refused.into_iter().map(|Refused { path, reason }| (path, Seen::Refused(reason)));
        Self { files: found.chain(refused).collect() }
    }
}

/// What is known about one file.
#[derive(Debug)]
pub(super) struct File {
    /// Its place in the order of precedence.
    pub(super) rank: usize,
    pub(super) condition: Condition,
    stamp: Option<Stamp>,
    /// Since when it has not been found any more.
    missing: Option<Instant>,
}

/// How far we are with a file.
#[derive(Debug)]
pub(super) enum Condition {
    /// It changes, or changed a moment ago. `looks` counts how often it was read and not whole.
    Settling { until: Instant, looks: u32 },
    /// It is whole as far as can be seen and waits to be read.
    Ready { looks: u32 },
    /// It is being read.
    Reading { looks: u32 },
    /// It cannot be used, for this reason; what could be learnt about it is told all the same.
    Refused { reason: String, known: Option<Known> },
    /// It may be loaded. Its copy is there until a load takes it.
    Usable { known: Known, copy: Option<PrivateCopy> },
}

impl File {
    fn is_settled(&self) -> bool {
        self.missing.is_none() && matches!(self.condition, Condition::Refused { .. } | Condition::Usable { .. })
    }
}

/// All files of the folders.
#[derive(Debug)]
pub(super) struct Files {
    /// By path.
    pub(super) by_path: BTreeMap<PathBuf, File>,
    /// How long a changed file must stay the same.
    debounce: Duration,
    /// How long to wait before a file that was not whole is read again.
    settle: Duration,
}

/// How often a file that is not whole is read before it counts as broken.
const LOOKS_MAX: u32 = 60;

impl Files {
    pub(super) fn new(debounce: Duration, settle: Duration) -> Self {
        Self { by_path: BTreeMap::new(), debounce, settle }
    }

    /// Takes in one look. At the first one nothing has to settle: what has lain there is ready at once.
    pub(super) fn see(&mut self, sighting: Sighting, is_first: bool, now: Instant) {
        let mut missing: BTreeMap<PathBuf, File> = std::mem::take(&mut self.by_path);
        for (rank, (path, seen)) in sighting.files.into_iter().enumerate() {
            let before = missing.remove(&path);
            self.by_path.insert(path, self.seen(before, rank, seen, is_first, now));
        }
        for (path, mut file) in missing {
            let since = *file.missing.get_or_insert(now);
            if now < since + self.debounce {
                self.by_path.insert(path, file);
            }
        }
    }

    fn seen(&self, before: Option<File>, rank: usize, seen: Seen, is_first: bool, now: Instant) -> File {
        let stamp = match seen {
            Seen::Refused(reason) => {
                let condition = Condition::Refused { reason, known: None };
                return File { rank, condition, stamp: None, missing: None };
            }
            Seen::File(stamp) => stamp,
        };
        let settling = Condition::Settling { until: now + self.debounce, looks: 0 };
        let condition = match before {
            None if is_first => Condition::Ready { looks: 0 },
            None => settling,
            Some(file) if file.stamp.as_ref() != Some(&stamp) => settling,
            Some(File { condition: Condition::Settling { until, looks }, .. }) if now >= until => {
                Condition::Ready { looks }
            }
            Some(file) => file.condition,
        };
        File { rank, condition, stamp: Some(stamp), missing: None }
    }

    /// The files to read now; they count as being read from here on.
    pub(super) fn take_ready(&mut self) -> Vec<PathBuf> {
        let mut ready: Vec<(usize, PathBuf)> = Vec::new();
        for (path, file) in &mut self.by_path {
            if let Condition::Ready { looks } = file.condition {
                file.condition = Condition::Reading { looks };
                ready.push((file.rank, path.clone()));
            }
        }
        ready.sort();
        ready.into_iter().map(|(_, path)| path).collect()
    }

    /// The file was read and is not whole.
    pub(super) fn not_whole(&mut self, path: &Path, now: Instant) {
        let settle = self.settle;
        self.read(path, |looks| {
            if looks >= LOOKS_MAX {
                let reason = "it is not whole and keeps changing; finish the copy, then touch the file".to_owned();
                return Condition::Refused { reason, known: None };
            }
            Condition::Settling { until: now + settle, looks: looks + 1 }
        });
    }

    /// The file was read; this is what came of it. It is forgotten when the file has changed since.
    pub(super) fn was_read(&mut self, path: &Path, condition: Condition) {
        self.read(path, |_| condition);
    }

    fn read(&mut self, path: &Path, then: impl FnOnce(u32) -> Condition) {
        if let Some(file) = self.by_path.get_mut(path)
            && let Condition::Reading { looks } = file.condition
        {
            file.condition = then(looks);
        }
    }

    /// Makes a usable file be read again, because its copy has been used.
    pub(super) fn read_again(&mut self, path: &Path) {
        if let Some(file) = self.by_path.get_mut(path) {
            file.condition = Condition::Ready { looks: 0 };
        }
    }

    /// Takes the copy of a usable file, for a load.
    pub(super) fn take_copy(&mut self, path: &Path) -> Option<(Known, PrivateCopy)> {
        match &mut self.by_path.get_mut(path)?.condition {
            Condition::Usable { known, copy } => Some((known.clone(), copy.take()?)),
            _ => None,
        }
    }

    /// Whether a file is on its way to be read, or to be forgotten.
    pub(super) fn is_changing(&self, path: &Path) -> bool {
        self.by_path.get(path).is_some_and(|file| !file.is_settled())
    }

    /// When to look again although nothing says that something changed.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let due = self.by_path.values().filter_map(|file| {
            let missing = file.missing.map(|since| since + self.debounce);
            let settling = match file.condition {
                Condition::Settling { until, .. } => Some(until),
                _ => None,
            };
            missing.or(settling)
        });
        due.min()
    }

    /// Whether every file is either usable or refused.
    pub(super) fn are_settled(&self) -> bool {
        self.by_path.values().all(File::is_settled)
    }

    /// Whether files are being read or wait for it.
    pub(super) fn are_read(&self) -> bool {
        !self.by_path.values().any(|file| matches!(file.condition, Condition::Ready { .. } | Condition::Reading { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PluginId;

    const DEBOUNCE: Duration = Duration::from_millis(200);
    const SETTLE: Duration = Duration::from_secs(1);

    fn files() -> Files {
        Files::new(DEBOUNCE, SETTLE)
    }

    fn stamp(version: i64) -> Seen {
        let modified = jiff::Timestamp::constant(version, 0);
        Seen::File(Stamp { modified, bytes: 1, place: (0, 0) })
    }

    fn sighting(seen: &[(&str, Seen)]) -> Sighting {
        Sighting { files: seen.iter().map(|(path, seen)| (PathBuf::from(path), seen.clone())).collect() }
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    fn usable(id: &str) -> Condition {
        let known = Known { id: PluginId::new(id), sha256: "00".to_owned(), manifest: Default::default() };
        Condition::Usable { known, copy: None }
    }

    #[tokio::test]
    async fn what_lies_there_at_the_start_is_read_at_once_in_its_order() {
        let mut files = files();
        files.see(
            sighting(&[("z", stamp(1)), ("a", stamp(1)), ("bad", Seen::Refused("no".into()))]),
            true,
            Instant::now(),
        );
        assert_eq!(files.take_ready(), paths(&["z", "a"]));
        assert_eq!(files.take_ready(), paths(&[]), "each is read once");
        assert!(!files.are_settled() && !files.are_read());
        files.was_read(Path::new("z"), usable("z"));
        files.was_read(Path::new("a"), usable("a"));
        assert!(files.are_settled() && files.next_look().is_none());
    }

    #[tokio::test]
    async fn a_new_or_changed_file_is_read_when_it_is_the_same_at_two_looks() {
        let begin = Instant::now();
        let mut files = files();
        files.see(sighting(&[("a", stamp(1))]), true, begin);
        files.take_ready();
        files.was_read(Path::new("a"), usable("a"));

        files.see(sighting(&[("a", stamp(2)), ("b", stamp(1))]), false, begin);
        assert_eq!((files.take_ready(), files.next_look()), (paths(&[]), Some(begin + DEBOUNCE)));
        files.see(sighting(&[("a", stamp(3)), ("b", stamp(1))]), false, begin + DEBOUNCE);
        assert_eq!(files.take_ready(), paths(&["b"]), "a is still being written");
        files.see(sighting(&[("a", stamp(3)), ("b", stamp(1))]), false, begin + 2 * DEBOUNCE);
        assert_eq!(files.take_ready(), paths(&["a"]));
    }

    #[tokio::test]
    async fn what_was_read_before_the_last_change_is_forgotten() {
        let begin = Instant::now();
        let mut files = files();
        files.see(sighting(&[("a", stamp(1))]), true, begin);
        files.take_ready();
        files.see(sighting(&[("a", stamp(2))]), false, begin);
        files.was_read(Path::new("a"), usable("a"));
        files.see(sighting(&[("a", stamp(2))]), false, begin + DEBOUNCE);
        assert_eq!(files.take_ready(), paths(&["a"]), "the second version is still to be read");
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_is_waited_for_and_then_refused() {
        let mut now = Instant::now();
        let mut files = files();
        files.see(sighting(&[("a", stamp(1))]), true, now);
        for _ in 0..=LOOKS_MAX {
            assert_eq!(files.take_ready(), paths(&["a"]));
            files.not_whole(Path::new("a"), now);
            now += SETTLE;
            files.see(sighting(&[("a", stamp(1))]), false, now);
        }
        assert_eq!(files.take_ready(), paths(&[]));
        assert!(files.are_settled());
    }

    #[tokio::test]
    async fn a_file_is_forgotten_when_it_is_missing_at_two_looks() {
        let begin = Instant::now();
        let mut files = files();
        files.see(sighting(&[("a", stamp(1))]), true, begin);
        files.take_ready();
        files.was_read(Path::new("a"), usable("a"));
        files.see(sighting(&[]), false, begin);
        assert!(files.by_path.contains_key(Path::new("a")), "it may be on its way back");
        assert_eq!(files.next_look(), Some(begin + DEBOUNCE));
        files.see(sighting(&[("a", stamp(1))]), false, begin);
        assert!(files.are_settled(), "it came back as it was");
        files.see(sighting(&[]), false, begin);
        files.see(sighting(&[]), false, begin + DEBOUNCE);
        assert!(files.by_path.is_empty());
    }
}
