//! Whatever stands in a configuration file and in the environment: a configuration or an error that names its place.
//! What `config show` prints of it is read the same. The text ends at the first NUL; behind it are the variables, one
//! on a line.

use roamgate::config;

pub fn fuzz(bytes: &[u8]) {
    let text = super::text(bytes);
    let (text, environment) = text.split_once('\0').unwrap_or((text, ""));
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("ROAMGATE__{name}"), value.to_owned()));
    match config::parse(Some("roamgate.toml".into()), text.to_owned(), variables) {
        Ok(loaded) => {
            let _ = loaded.problems(loaded.config.check());
            let shown = loaded.config.to_toml().unwrap();
            // a key that stands in the file itself is not shown, so it cannot be read again
            if shown.contains("(hidden)") {
                return;
            }
            let again = config::parse(None, shown.clone(), std::iter::empty());
            let again = again.unwrap_or_else(|error| panic!("{error}\n{shown}"));
            assert_eq!(again.config.to_toml().unwrap(), shown);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
