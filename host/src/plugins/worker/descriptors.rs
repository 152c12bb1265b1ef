//! What a worker inherits, and gets rid of before anything else happens: descriptors and its place in a terminal.
//!
//! One of the host's few places with `unsafe`: closing a descriptor that nobody owns by type cannot be done without.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

/// Takes the socket out of standard input and leaves the process with nothing else open: input reads nothing, output
/// and errors go to the host's log.
///
/// To be called first thing in `main`, while nothing of this program has opened anything.
pub(super) fn take_socket() -> io::Result<UnixStream> {
    // Keys typed at the host's terminal are for the host, and a plugin must not reach that terminal. It fails when
    // this process leads a group already, which is as good.
    let _ = rustix::process::setsid();
    close_inherited()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing: File = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(socket)
}

/// Closes every descriptor beyond the standard three. The host opens its own so that no child gets them; a library in
/// the host may have been less careful.
fn close_inherited() -> io::Result<()> {
    // The list itself is a descriptor, too, and is gone once the numbers are known.
    let numbers: Vec<i32> = fs::read_dir(DESCRIPTORS)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // SAFETY: this runs before anything of this program has opened a descriptor, so none of these numbers has an
        // owner that would use or close it later. The number of the list is not open any more, and is only asked about.
        unsafe {
            if rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)).is_ok() {
                rustix::io::close(number);
            }
        }
    }
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const DESCRIPTORS: &str = "/proc/self/fd";
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DESCRIPTORS: &str = "/dev/fd";
