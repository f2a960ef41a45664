//! The outputs of a command: where it must write, and whether it did.
//!
//! ```text
//! report: file                     outputs/report/report        one regular file and nothing beside it
//! page: { file: page.html }        outputs/page/page.html       likewise
//! rows: rows                       outputs/rows/                a folder with at least one regular file
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_contract::{Context, StageError};

use crate::error::CommandError;
use crate::secrets::Secrets;

/// The outputs of a command that is about to run.
pub(crate) struct Outputs {
    outputs: Vec<Output>,
}

struct Output {
    port: String,
    folder: PathBuf,
    /// The name of its only file.
    file: Option<String>,
}

impl Outputs {
    /// Makes the folders.
    pub(crate) fn prepare(ctx: &Context<'_>) -> Result<Self, StageError> {
        let mut outputs = Vec::with_capacity(ctx.outputs.len());
        for output in &ctx.outputs {
            let folder = std::path::absolute(ctx.output_dir(&output.name)?)
                .map_err(|error| StageError::io("find", Path::new(&output.name), error))?;
            outputs.push(Output { port: output.name.clone(), folder, file: output.file.clone() });
        }
        Ok(Outputs { outputs })
    }

    /// Port to what stands for it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.outputs.iter().map(|output| {
            let path = output.file.as_ref().map_or_else(|| output.folder.clone(), |name| output.folder.join(name));
            (output.port.clone(), path)
        })
    }

    /// The folders, one a port.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(|output| output.folder.as_path())
    }

    /// Refuses outputs that cannot be published: missing, not regular files, or with a secret in them.
    pub(crate) fn check(&self, secrets: &Secrets) -> Result<(), CommandError> {
        for output in &self.outputs {
            let files = output.files()?;
            output.check_files(&files)?;
            for (name, path) in &files {
                let leaked = |secret: &str, place: String| CommandError::SecretInOutput {
                    secret: secret.into(),
                    port: output.port.clone(),
                    place,
                };
                if let Some(secret) = secrets.find_in_bytes(name.as_bytes()) {
                    return Err(leaked(secret, "the name of a file".into()));
                }
                if let Some(secret) = secrets.find_in_file(path)? {
                    return Err(leaked(secret, format!("`{name}`")));
                }
            }
        }
        Ok(())
    }
}

impl Output {
    /// Name to path of every regular file; anything else that is no folder is refused.
    fn files(&self) -> Result<BTreeMap<String, PathBuf>, CommandError> {
        let mut files = BTreeMap::new();
        let mut pending = vec![(String::new(), self.folder.clone())];
        while let Some((prefix, folder)) = pending.pop() {
            for entry in std::fs::read_dir(&folder).map_err(CommandError::io("read the folder", &folder))? {
                let entry = entry.map_err(CommandError::io("read the folder", &folder))?;
                let path = entry.path();
                let file_type = entry.file_type().map_err(CommandError::io("read", &path))?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let refuse = |what| CommandError::NotAFile { port: self.port.clone(), name: name.clone(), what };
                match entry.file_name().to_str() {
                    None => return Err(refuse("has a name that is not UTF-8")),
                    Some(name) if file_type.is_dir() && self.file.as_deref() == Some(name) => {
                        return Err(refuse("is a folder"));
                    }
                    Some(_) if file_type.is_dir() => pending.push((format!("{name}/"), path)),
                    Some(_) if file_type.is_file() => drop(files.insert(name, path)),
                    Some(_) if file_type.is_symlink() => return Err(refuse("is a symlink")),
                    Some(_) => return Err(refuse("is no regular file")),
                }
            }
        }
        Ok(files)
    }

    fn check_files(&self, files: &BTreeMap<String, PathBuf>) -> Result<(), CommandError> {
        let Some(file) = &self.file else {
            if files.is_empty() {
                let what = format!("file in the folder `{}`", self.folder.display());
                return Err(CommandError::NoOutput { port: self.port.clone(), what });
            }
            return Ok(());
        };
        if let Some(other) = files.keys().find(|name| *name != file) {
            return Err(CommandError::MoreThanOneFile {
                port: self.port.clone(),
                file: file.clone(),
                other: other.clone(),
            });
        }
        if files.is_empty() {
            return Err(CommandError::NoOutput { port: self.port.clone(), what: format!("file `{file}`") });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is said of an output of one file (`r`), or of a folder, with these files in it.
    fn check(is_one_file: bool, write: impl FnOnce(&Path)) -> Result<(), &'static str> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path());
        let file = is_one_file.then(|| "r".to_string());
        let output = Output { port: "p".into(), folder: folder.path().into(), file };
        let secrets = Secrets::of([("TOKEN", "hush-hush")]);
        Outputs { outputs: vec![output] }.check(&secrets).map_err(|error| StageError::from(error).slug)
    }

    #[test]
    fn only_regular_files_of_the_declared_names_are_published() {
        let write = |name: &'static str| move |folder: &Path| fs::write(folder.join(name), "x").expect("written");
        assert_eq!(check(true, write("r")), Ok(()));
        assert_eq!(check(false, write("anything")), Ok(()));
        assert_eq!(check(true, |_| ()), Err("missing-output"));
        assert_eq!(check(false, |folder| fs::create_dir(folder.join("empty")).expect("made")), Err("missing-output"));
        assert_eq!(check(true, write("other")), Err("bad-output"));
        assert_eq!(check(true, |folder| fs::create_dir(folder.join("r")).expect("made")), Err("bad-output"));
        let link = |folder: &Path| std::os::unix::fs::symlink("/etc/hosts", folder.join("r")).expect("made");
        assert_eq!(check(true, link), Err("bad-output"));
    }

    #[test]
    fn a_secret_in_a_file_or_its_name_is_refused() {
        let write = |folder: &Path| fs::write(folder.join("r"), "say hush-hush!").expect("written");
        assert_eq!(check(true, write), Err("secret-in-output"));
        let name = |folder: &Path| fs::write(folder.join("hush-hush.txt"), "x").expect("written");
        assert_eq!(check(false, name), Err("secret-in-output"));
    }
}
