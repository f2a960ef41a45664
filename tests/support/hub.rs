//! A stand-in for the Hugging Face Hub on loopback: real rows and a tiny real Llama out of `PIPE_TEST_DATA`.
//!
//! Reads tools/make_hub_tree.py, tools/hub_server.py and the data they serve: `tatsu-lab/alpaca` (2,000 rows),
//! `tatsu-lab/alpaca-demo` (999 rows) and `karpathy/stories260K`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A hub server that ends with the test.
pub(crate) struct Hub {
    process: Child,
    /// `http://127.0.0.1:PORT`, for `HF_ENDPOINT`.
    pub(crate) address: String,
}

/// `PIPE_TEST_DATA`. Without it the test says that it is skipped.
pub(crate) fn test_data(test: &str) -> Option<PathBuf> {
    let data = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from);
    if data.is_none() {
        writeln!(std::io::stderr(), "SKIPPED {test}: PIPE_TEST_DATA is not set").expect("stderr can be written to");
    }
    data
}

impl Hub {
    /// Lays the tree out in `folder`/hub and serves it.
    pub(crate) fn start(data: &Path, folder: &Path) -> Self {
        let python = |arguments: &[&OsStr]| {
            let mut command = Command::new("python3");
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let (tree, port_file) = (folder.join("hub"), folder.join("hub.json"));
        let make = data.join("tools/make_hub_tree.py");
        assert!(python(&[make.as_os_str(), tree.as_os_str()]).status().expect("python3 runs").success());
        let server = data.join("tools/hub_server.py");
        let mut command = python(&[server.as_os_str(), "--root".as_ref(), tree.as_os_str()]);
        command.arg("--port-file").arg(&port_file).arg("--parent-pid").arg(std::process::id().to_string());
        let process = command.spawn().expect("python3 runs");
        let begin = Instant::now();
        while !port_file.exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the hub did not start");
            std::thread::yield_now();
        }
        let text = std::fs::read_to_string(&port_file).expect("the port file");
        let ports: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        Hub { process, address: ports["hub"].as_str().expect("an address").to_string() }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
