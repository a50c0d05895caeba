//! The production set-up of README.md, from nothing, by its very commands: they are read from there and carried out by a shell.

use std::fs;
use std::process::{Command, Stdio};

use shardis_tests::node;
use shardis_tests::process::{free_port, repository_file};

/// Heading of the section, as README.md has it.
const HEADING: &str = "### From nothing";

/// The port that README.md names.
const PORT: &str = "6380";

/// The commands of the section: the lines of its blocks of shell.
fn commands() -> String {
    let readme = repository_file("README.md").expect("a README.md");
    let (_, section) = readme.split_once(&format!("{HEADING}\n")).expect("the section");
    let section = section.split("\n#").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    let lines: Vec<&str> = blocks.filter_map(|block| block.split("```").next()).collect();
    assert_eq!(lines.len(), 3, "set up, use, exchange");
    lines.concat()
}

/// Ends the server that the commands have left in the background.
struct Ending(std::path::PathBuf);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[test]
fn the_production_set_up_of_the_readme_works_as_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid_file = directory.path().join("server.pid");
    let _ending = Ending(pid_file.clone());
    let script = commands().replace(PORT, &free_port().to_string()).replace(
        "--daemonize yes",
        &format!("--daemonize yes --pidfile {}", pid_file.display()),
    );
    let more = "as orders-2 set orders:2 x; as orders get orders:1; as admin acl list";
    let folder = node::binary().parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["60", "sh", "-ec", &format!("{script}\nset +e\n{more}")])
        .current_dir(&directory)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let log = fs::read_to_string(directory.path().join("shardis.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{text}\n{}\n{log}", String::from_utf8_lossy(&output.stderr));
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {all}"));
    let order = [
        at("PONG\n"),
        at("NOPERM No permissions to access a key\n"),
        at("paid\n"),
        at("user admin on "),
    ];
    assert!(order.is_sorted(), "{all}");
    assert!(
        text.contains("user orders-2 on ") && !text.contains("user orders on "),
        "{all}"
    );
    assert!(
        text.contains("NOAUTH"),
        "the former user's certificate names nobody: {all}"
    );
}
