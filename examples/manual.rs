//! Writes the manual pages and the shell completions, from the command line's own definition.
//!
//! ```text
//! cargo run -q --example manual -- target/manual
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual FOLDER");
        return ExitCode::from(2);
    };
    match write(&folder) {
        Ok(count) => {
            println!("{count} files in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &std::path::Path) -> std::io::Result<usize> {
    let (pages, shells) = (folder.join("man1"), folder.join("completions"));
    for folder in [&pages, &shells] {
        std::fs::create_dir_all(folder)?;
    }
    // one page for each command and one for each of its own: roamgate-dns-check(1)
    clap_mangen::generate_to(roamgate::cli::command(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut roamgate::cli::command(), "roamgate", &shells)?;
    }
    Ok(std::fs::read_dir(&pages)?.count() + std::fs::read_dir(&shells)?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_knows_them() {
        let folder = std::env::temp_dir().join(format!("roamgate-manual-{}", std::process::id()));
        let count = write(&folder).unwrap();
        let page = std::fs::read_to_string(folder.join("man1/roamgate-dns-check.1")).unwrap();
        let bash = std::fs::read_to_string(folder.join("completions/roamgate.bash")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(count > 40, "{count}");
        assert!(page.contains("Compare them with what the DNS says"), "{page}");
        assert!(bash.contains("registry"), "{bash}");
    }
}
