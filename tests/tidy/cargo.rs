//! What the rules need of every `Cargo.toml`, read line by line: this project writes them in one plain form.

use std::collections::BTreeMap;

use crate::tree::text_files;

/// A crate of the workspace.
pub(crate) struct Crate {
    /// As in `[package]`.
    pub(crate) name: String,
    /// Folder below the root; empty for the root package.
    pub(crate) folder: String,
    /// `[dependencies]`: name -> the value as written.
    pub(crate) dependencies: BTreeMap<String, String>,
    /// `[dev-dependencies]`, likewise.
    pub(crate) dev_dependencies: BTreeMap<String, String>,
    /// `[workspace.dependencies]`, likewise; in the root package only.
    pub(crate) workspace_dependencies: BTreeMap<String, String>,
}

impl Crate {
    /// `folder/name`, or `name` in the root package.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_string() } else { format!("{}/{name}", self.folder) }
    }

    /// Whether the file at `path` belongs to it. The root package owns `src` and `tests`.
    pub(crate) fn owns(&self, path: &str) -> bool {
        ["src/", "tests/", "benches/", "examples/"].iter().any(|part| path.starts_with(&self.path(part)))
    }
}

/// Every crate of the workspace, sorted by folder.
pub(crate) fn crates() -> Vec<Crate> {
    let manifests = text_files(|path| path == "Cargo.toml" || path.ends_with("/Cargo.toml"));
    manifests.iter().filter_map(|manifest| read_manifest(&manifest.path, &manifest.text)).collect()
}

fn read_manifest(path: &str, text: &str) -> Option<Crate> {
    let mut found = Crate {
        name: String::new(),
        folder: path.trim_end_matches("Cargo.toml").trim_end_matches('/').to_string(),
        dependencies: BTreeMap::new(),
        dev_dependencies: BTreeMap::new(),
        workspace_dependencies: BTreeMap::new(),
    };
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let (key, value) = (key.trim().trim_end_matches(".workspace").to_string(), value.trim().to_string());
        match section {
            "[package]" if key == "name" => found.name = value.trim_matches('"').to_string(),
            "[dependencies]" => found.dependencies.extend([(key, value)]),
            "[workspace.dependencies]" => found.workspace_dependencies.extend([(key, value)]),
            "[dev-dependencies]" => found.dev_dependencies.extend([(key, value)]),
            other if other.starts_with("[target.") && other.ends_with(".dependencies]") => {
                found.dependencies.extend([(key, value)])
            }
            _ => {}
        }
    }
    (!found.name.is_empty()).then_some(found)
}

#[test]
fn a_manifest_is_read() {
    let text = "[package]\nname = \"pipe-x\"\n[dependencies]\nserde.workspace = true\n# arrow.workspace = true\n\
                y = { workspace = true, optional = true }\n[dev-dependencies]\ninsta.workspace = true\n";
    let found = read_manifest("stages/x/Cargo.toml", text).expect("it has a name");
    assert_eq!((found.name.as_str(), found.folder.as_str()), ("pipe-x", "stages/x"));
    assert_eq!(found.dependencies.keys().collect::<Vec<_>>(), ["serde", "y"]);
    assert_eq!(found.dev_dependencies.keys().collect::<Vec<_>>(), ["insta"]);
    assert!(found.owns("stages/x/src/lib.rs") && !found.owns("stages/x2/src/lib.rs"));
}
