//! `sandbox: strict`: a command reads and writes what is declared, by the kernel's Landlock.
//!
//! | may be read and started | may be read and written |
//! |---|---|
//! | the system's folders, where programs and libraries are | the stage's scratch folder |
//! | where the program is installed, and its interpreter | the folders of its outputs |
//! | its inputs and `sources` | `/dev/null` and the like, `/dev/shm` |
//!
//! Everything else is denied: a file beside the pipeline, the home folder, `/tmp`, the store. Where the kernel cannot do
//! that, the stage fails. It deliberately leaves the network alone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// Programs, libraries, what the kernel tells, and where `/etc/resolv.conf` may lead.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys",
    "/dev",
    "/run/systemd/resolve",
];

/// Devices that keep nothing, and shared memory.
const WRITABLE: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm"];

/// Folders that hold the programs of an installation, whose other files lie beside them.
const PROGRAM_FOLDERS: [&str; 3] = ["bin", "sbin", "shims"];

/// What a command may touch.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
}

impl Sandbox {
    /// The system's folders and devices, and nothing of the user's.
    pub(crate) fn new() -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Sandbox { read: paths(&SYSTEM), write: paths(&WRITABLE) }
    }

    /// Lets a file, or a folder with all in it, be read.
    pub(crate) fn may_read(&mut self, path: &Path) {
        self.read.insert(path.to_path_buf());
    }

    /// Lets a folder be read and written.
    pub(crate) fn may_write(&mut self, folder: &Path) {
        self.write.insert(folder.to_path_buf());
    }

    /// Lets a program be started, with what is installed with it; following links, as `python` in a virtual environment is
    /// one. A folder that has one of `apart` in it is more than an installation: then the program alone.
    pub(crate) fn may_start(&mut self, program: &Path, apart: &[&Path]) {
        let real = program.canonicalize().ok();
        for path in [Some(program.to_path_buf()), real].into_iter().flatten() {
            let folder = installation(&path).filter(|folder| apart.iter().all(|path| !path.starts_with(folder)));
            self.read.insert(folder.map_or_else(|| path.clone(), Path::to_path_buf));
        }
    }

    /// Restricts the calling thread and what it starts from now on.
    #[cfg(target_os = "linux")]
    pub(crate) fn enter(&self) -> Result<(), CommandError> {
        let failed = |error: landlock::RulesetError| CommandError::NoSandbox { why: error.to_string() };
        match self.restrict().map_err(failed)? {
            landlock::RulesetStatus::NotEnforced => {
                Err(CommandError::NoSandbox { why: "this kernel has no Landlock, or it is turned off".into() })
            }
            _ => Ok(()),
        }
    }

    /// Older kernels know less to deny; all that have Landlock deny reading.
    #[cfg(target_os = "linux")]
    fn restrict(&self) -> Result<landlock::RulesetStatus, landlock::RulesetError> {
        use landlock::{
            ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, path_beneath_rules,
        };
        let newest = ABI::V5;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(newest))?
            .create()?
            .add_rules(path_beneath_rules(&self.read, AccessFs::from_read(newest)))?
            .add_rules(path_beneath_rules(&self.write, AccessFs::from_all(newest)))?
            .restrict_self()?;
        Ok(status.ruleset)
    }

    /// Restricts the calling thread and what it starts from now on.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn enter(&self) -> Result<(), CommandError> {
        Err(CommandError::NoSandbox { why: "only Linux has Landlock".into() })
    }
}

/// The folder that a program's own files lie in: what holds `bin/`.
fn installation(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    let is_of_programs = PROGRAM_FOLDERS.iter().any(|name| folder.file_name() == Some(OsStr::new(name)));
    folder.parent().filter(|installation| is_of_programs && installation.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_its_installation_but_never_what_the_pipeline_lies_in() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().canonicalize().expect("it is there");
        for name in ["project/.venv/bin", "python/3/bin", "project/bin"] {
            std::fs::create_dir_all(dir.join(name)).expect("made");
        }
        for name in ["python/3/bin/python3", "project/bin/tool"] {
            std::fs::write(dir.join(name), "").expect("written");
        }
        std::os::unix::fs::symlink(dir.join("python/3/bin/python3"), dir.join("project/.venv/bin/python"))
            .expect("made");
        let granted = |program: &str| -> Vec<String> {
            let mut sandbox = Sandbox::default();
            sandbox.may_start(&dir.join(program), &[&dir.join("project")]);
            let relative = |path: &PathBuf| path.strip_prefix(&dir).expect("below it").display().to_string();
            sandbox.read.iter().map(relative).collect()
        };
        assert_eq!(granted("project/.venv/bin/python"), ["project/.venv", "python/3"]);
        assert_eq!(granted("project/bin/tool"), ["project/bin/tool"]);
        assert_eq!(installation(Path::new("/bin/sh")), None);
    }
}
