//! `--memory 8GiB`: the most memory that stages, or a measurement, may take.

use super::failure::CliError;
use crate::diagnostic::Diagnostic;
use crate::spec::parse_memory;

/// Bytes of `text`, with the units of `resources:`.
pub(super) fn read(text: &str) -> Result<u64, CliError> {
    parse_memory(text).ok_or_else(|| {
        let message = format!("--memory is `{text}`, but must be a size with a unit");
        Diagnostic::new("bad-memory", message).help("write `8GiB` or `512MiB`").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(read("1.5GiB").ok(), Some(3 << 29));
        assert!(read("8").is_err() && read("much").is_err());
    }
}
