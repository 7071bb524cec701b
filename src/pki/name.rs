//! Names as they go into certificates.

/// Not a DNS name, or one that does not belong into a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a certificate's name: {why}")]
pub struct NameError {
    /// As given.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A host's full name, as it goes into a SAN: lower case, no final dot, no wildcard.
pub fn dns_name(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let wrong = |why| Err(NameError { name: text.chars().take(300).collect(), why });
    if name.is_empty() || name.len() > 253 {
        return wrong("a name has 1 to 253 characters");
    }
    if name.contains('*') {
        return wrong("a wildcard stands for one label only and matches no JoinEUI name: write full names");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return wrong("a label has 1 to 63 characters");
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !label.chars().all(fits) || label.starts_with('-') || label.ends_with('-') {
            return wrong("a label consists of letters, digits, - and _, with no - at its ends");
        }
    }
    Ok(name)
}

/// A subtree of an intermediate: a name with everything below it. Dots around it do not matter.
pub fn dns_subtree(text: &str) -> Result<String, NameError> {
    let name = dns_name(text.strip_prefix('.').unwrap_or(text))?;
    if name.contains('.') {
        Ok(name)
    } else {
        Err(NameError { name, why: "a whole top-level domain is nobody's" })
    }
}
