//! `Cargo.lock`, read block by block as Cargo writes it: which packages, and what each is built from.

use std::collections::BTreeMap;

use crate::tree::root;

/// A package of `Cargo.lock`.
#[derive(Clone, Debug)]
pub(crate) struct LockedPackage {
    /// `name version checksum`; no checksum where it is a crate of the workspace.
    pub(crate) line: String,
    /// `name` or `name version`, as Cargo writes them.
    pub(crate) dependencies: Vec<String>,
}

/// `Cargo.lock`: `name` and `name version` -> package. Cargo writes the version only where two are in use.
pub(crate) fn locked_packages() -> BTreeMap<String, LockedPackage> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let mut packages = BTreeMap::new();
    for block in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            line.unwrap_or_default().trim_matches('"').to_string()
        };
        let list = block
            .split_once("dependencies = [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("", |(list, _)| list);
        let dependencies = list.lines().map(|line| line.trim().trim_end_matches(',').trim_matches('"').to_string());
        let (name, version) = (field("name"), field("version"));
        let package = LockedPackage {
            line: format!("{name} {version} {}", field("checksum")).trim_end().to_string(),
            dependencies: dependencies.filter(|name| !name.is_empty()).collect(),
        };
        packages.insert(format!("{name} {version}"), package.clone());
        packages.insert(name, package);
    }
    packages
}
