//! Running `download`: names to files, files published by reference.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_contract::{
    Artifact, ArtifactFile, CancelToken, Context, Cpu, ExternalFile, OutputPort, Resolved, Source, Stage, StageError,
    Unit,
};

use crate::configs;
use crate::environment::Environment;
use crate::error::DownloadError;
use crate::hub::Hub;
use crate::local::{self, Place};
use crate::net::Net;
use crate::s3::S3;
use crate::select::select;
use crate::settings::Settings;
use crate::summary;
use crate::web::Web;

/// The stage with its settings.
pub struct Download {
    /// As read.
    pub settings: Settings,
    /// Where the hub and its cache are.
    pub environment: Environment,
}

impl Stage for Download {
    fn outputs(&self) -> Vec<OutputPort> {
        vec![self.settings.wanted.output()]
    }

    fn cpu(&self) -> Cpu {
        Cpu::One
    }

    fn source(&self, base_dir: &Path) -> Result<Source, StageError> {
        let request = match self.find(base_dir)? {
            Place::Local(path) => {
                let (root, names) = self.local_names(&path)?;
                return Ok(Source::Files { root, names });
            }
            Place::LocalPattern { folder, pattern } => {
                let names = local::matching(&folder, &pattern)?;
                return Ok(Source::Files { root: folder, names });
            }
            Place::Hub(id) => self.hub(&id).request(),
            Place::Web(address) => self.web(&address).request(),
            Place::S3(_) => S3::new(&self.settings, &self.environment)?.request(),
        };
        Ok(Source::Remote { request })
    }

    fn resolve(&self) -> Result<Resolved, StageError> {
        let net = Net::new(&self.environment, CancelToken::default(), &|_| ())?;
        let from = self.settings.from.as_str();
        let id = if local::is_web(from) {
            self.web(from).resolve(&net)?
        } else if local::is_s3(from) {
            S3::new(&self.settings, &self.environment)?.resolve(&net)?
        } else {
            self.hub(from).resolve(&net)?
        };
        Ok(Resolved { id })
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let warn = |line: String| ctx.warn(line);
        let net = || Net::new(&self.environment, ctx.cancel.clone(), &warn);
        let files = match self.find(&ctx.base_dir)? {
            Place::Local(path) => {
                let (root, names) = self.local_names(&path)?;
                local_files(&root, names)?
            }
            Place::LocalPattern { folder, pattern } => local_files(&folder, local::matching(&folder, &pattern)?)?,
            Place::Hub(id) => self.hub(&id).files(&net()?, resolved(ctx)?, ctx)?,
            Place::S3(_) => S3::new(&self.settings, &self.environment)?.files(&net()?, resolved(ctx)?, ctx)?,
            Place::Web(address) => {
                // How large it is, only its server knows.
                let on_bytes = &mut |n_bytes: u64| ctx.progress(n_bytes, 0, Unit::Bytes);
                Files::from([self.web(&address).file(&net()?, resolved(ctx)?, on_bytes)?])
            }
        };
        let port = self.settings.wanted.output();
        let artifact = Artifact { kind: port.kind, digest: String::new(), files };
        summary::report(&artifact, ctx)?;
        for (name, file) in artifact.files {
            let digest = (!file.digest.is_empty()).then_some(file.digest);
            ctx.publish_external(ExternalFile { port: port.name.to_string(), name, path: file.path, digest });
        }
        Ok(())
    }
}

type Files = BTreeMap<String, ArtifactFile>;

impl Download {
    fn find(&self, base_dir: &Path) -> Result<Place, DownloadError> {
        local::find(&self.settings.from, base_dir, self.environment.home.as_deref())
    }

    fn hub(&self, id: &str) -> Hub<'_> {
        Hub::new(&self.settings, &self.environment, id)
    }

    fn web<'a>(&'a self, address: &'a str) -> Web<'a> {
        Web::new(&self.environment, address, self.settings.sha256.as_deref())
    }

    /// The folder, and the names below it that are wanted. A single file is wanted as it is.
    fn local_names(&self, path: &Path) -> Result<(std::path::PathBuf, Vec<String>), DownloadError> {
        let (root, names) = local::list(path)?;
        if path.is_file() {
            return Ok((root, names));
        }
        let place = format!("`{}`", self.settings.from);
        let has_readme = configs::matter_to(&self.settings) && names.iter().any(|name| name == configs::README);
        let configurations = if has_readme {
            let path = root.join(configs::README);
            let readme = std::fs::read(&path).map_err(DownloadError::io("read", &path))?;
            configs::read(&place, &String::from_utf8_lossy(&readme))?
        } else {
            Vec::new()
        };
        let names = select(&self.settings, &place, &names, &configurations)?;
        Ok((root, names))
    }
}

/// Digests are left to the runner, which remembers them by the file's times.
fn local_files(root: &Path, names: Vec<String>) -> Result<Files, DownloadError> {
    let mut files = Files::new();
    for name in names {
        let path = root.join(&name);
        let size_bytes = std::fs::metadata(&path).map_err(DownloadError::io("read", &path))?.len();
        files.insert(name, ArtifactFile { path, size_bytes, digest: String::new() });
    }
    Ok(files)
}

/// What [`Stage::resolve`] gave.
fn resolved<'c>(ctx: &'c Context<'_>) -> Result<&'c str, StageError> {
    let unresolved = || StageError::user("unresolved", "what the name stands for was not resolved");
    ctx.resolved.as_deref().ok_or_else(unresolved)
}
