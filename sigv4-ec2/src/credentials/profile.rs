//! Profiles: `~/.aws/config` and `~/.aws/credentials`, as `aws configure` writes them.
//!
//! Only what stands there as a key is used. Profiles that must first ask somebody else (single sign-on, other roles,
//! programs) are refused by name, with the command that turns them into keys.

use super::{Credentials, CredentialsError, environment::Environment};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

/// A file that is longer is not one of these.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What makes a profile one that we cannot use.
const INDIRECT: [&str; 5] = ["sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"];

/// One profile, of both files together; the credentials file wins.
#[derive(Default)]
pub(super) struct Profile {
    values: BTreeMap<String, String>,
}

impl Profile {
    /// `None` if neither file has it.
    pub(super) fn read(environment: &Environment, name: &str) -> Result<Option<Profile>, CredentialsError> {
        let mut profile = None;
        for (path, headings) in [
            (path(environment, "AWS_CONFIG_FILE", "config"), [format!("profile {name}"), name.to_owned()]),
            (path(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"), [name.to_owned(), name.to_owned()]),
        ] {
            let Some(text) = path.map(|path| read(&path)).transpose()?.flatten() else { continue };
            let found = sections(&text).into_iter().filter(|(heading, _)| {
                // In `config` only the default profile may stand without the word.
                *heading == headings[0] || (*heading == headings[1] && (headings[0] == headings[1] || name == "default"))
            });
            for (_, values) in found {
                profile.get_or_insert_with(Profile::default).values.extend(values);
            }
        }
        Ok(profile)
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `None` if it has none of its own.
    pub(super) fn credentials(&self, name: &str) -> Result<Option<Credentials>, CredentialsError> {
        let half = |set: &str, missing: &str| {
            let of = |key: &str| format!("{key} of profile `{name}`");
            CredentialsError::Half { set: of(set), missing: of(missing) }
        };
        match (self.value("aws_access_key_id"), self.value("aws_secret_access_key")) {
            (Some(key), Some(secret)) => Ok(Some(Credentials::new(key, secret, self.value("aws_session_token").map(str::to_owned)))),
            (Some(_), None) => Err(half("aws_access_key_id", "aws_secret_access_key")),
            (None, Some(_)) => Err(half("aws_secret_access_key", "aws_access_key_id")),
            (None, None) => match INDIRECT.iter().find(|key| self.value(key).is_some()) {
                Some(key) => Err(CredentialsError::Indirect { profile: name.to_owned(), key: (*key).to_owned() }),
                None => Ok(None),
            },
        }
    }
}

fn path(environment: &Environment, variable: &str, file: &str) -> Option<PathBuf> {
    let named = environment.value(variable).map(PathBuf::from);
    named.or_else(|| Some(Path::new(environment.value("HOME")?).join(".aws").join(file)))
}

fn read(path: &Path) -> Result<Option<String>, CredentialsError> {
    let wrong = |source| CredentialsError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(wrong(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(Some(text))
}

/// `[heading]`, then `key = value`; indented lines belong to a key above (`s3 =`) and are nothing to us.
fn sections(text: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(heading) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let heading = heading.split_whitespace().collect::<Vec<_>>().join(" ");
            found.push((heading, BTreeMap::new()));
        } else if let (false, Some((key, value)), Some((_, values))) =
            (line.starts_with([' ', '\t']), bare.split_once('='), found.last_mut())
        {
            // A comment begins with space and `#`: secrets may hold a bare one.
            let value = value.split(" #").next().unwrap_or_default().trim();
            values.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_amazons_tools_read_it() {
        let text = "junk\n[default]\nregion=eu-west-1\n# no\n[ profile  work ]\naws_access_key_id = AKID # mine\ns3 =\n    max = 5\nAWS_SECRET_ACCESS_KEY=a=b#c\n";
        let found = sections(text);
        assert_eq!(found[0].0, "default");
        assert_eq!(found[1].0, "profile work");
        assert_eq!(found[1].1["aws_access_key_id"], "AKID");
        assert_eq!(found[1].1["aws_secret_access_key"], "a=b#c");
        assert!(!found[1].1.contains_key("max"));
    }
}
