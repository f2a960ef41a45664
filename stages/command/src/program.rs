//! The first word of `run` to an executable file.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// Finds `program` as a shell does: a name without `/` in the folders of `search_path`, anything else from `base_dir` on.
pub(crate) fn find(program: &OsStr, base_dir: &Path, search_path: &OsStr) -> Result<PathBuf, CommandError> {
    let not_found = |place: String| CommandError::NotFound { program: program.to_string_lossy().into_owned(), place };
    if program.as_encoded_bytes().contains(&b'/') {
        let path = base_dir.join(program);
        return match std::fs::metadata(&path) {
            Ok(metadata) if is_executable(&metadata) => Ok(path),
            Ok(_) => Err(CommandError::NotExecutable { path }),
            Err(_) => Err(not_found(format!("at `{}`", path.display()))),
        };
    }
    let folders = std::env::split_paths(search_path).filter(|folder| folder.is_absolute());
    let found = folders
        .map(|folder| folder.join(program))
        .find(|path| std::fs::metadata(path).is_ok_and(|m| is_executable(&m)));
    found.ok_or_else(|| not_found(format!("on PATH, which is `{}`", search_path.to_string_lossy())))
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// The program that a script's first line names, `#!/usr/bin/env python3`: that one is started too.
pub(crate) fn interpreter(script: &Path, base_dir: &Path, search_path: &OsStr) -> Option<PathBuf> {
    use std::io::Read as _;
    // Linux reads as much of the first line.
    let mut head = Vec::with_capacity(256);
    std::fs::File::open(script).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let interpreter = Path::new(words.next()?);
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Some(interpreter.to_path_buf());
    }
    let program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    find(OsStr::new(program), base_dir, search_path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        path
    }

    #[test]
    fn a_name_is_looked_for_on_the_path_and_a_path_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path();
        let good = script(dir, "tool", "#!/usr/bin/env -S sh -e\n", 0o755);
        let plain = script(dir, "plain", "", 0o644);
        let find = |program: &str, path: &str| super::find(OsStr::new(program), dir, OsStr::new(path));
        let path = format!("/nowhere:{}", dir.display());
        assert_eq!(find("tool", &path).expect("it is there"), good);
        assert_eq!(find("./tool", "").expect("it is there"), dir.join("./tool"));
        assert!(matches!(find("tool", "."), Err(CommandError::NotFound { .. })), "PATH has absolute folders only");
        assert!(matches!(find("plain", &path), Err(CommandError::NotFound { .. })));
        assert!(matches!(find("./plain", &path), Err(CommandError::NotExecutable { path }) if path.ends_with("plain")));
        assert!(matches!(find("./none", &path), Err(CommandError::NotFound { .. })));
        let sh = script(dir, "sh", "", 0o755);
        assert_eq!(interpreter(&good, dir, OsStr::new(&path)), Some(sh));
        assert_eq!(interpreter(&plain, dir, OsStr::new(&path)), None);
        let direct = script(dir, "direct", "#!/opt/x/python -u\nprint()", 0o755);
        assert_eq!(interpreter(&direct, dir, OsStr::new(&path)), Some(PathBuf::from("/opt/x/python")));
    }
}
