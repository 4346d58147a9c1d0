//! The places one after the other, as Amazon's own tools ask them.
//!
//! The first that has something decides; a broken one is an error and not a reason to look further, because acting as
//! somebody else would be worse.

use super::{Credentials, CredentialsError, Source, environment::Environment, imds::Imds, profile::Profile};
use crate::{Clock, http::is_unreachable};
use std::sync::Arc;

/// Environment, then profile, then the machine's role.
#[derive(Debug)]
pub struct Chain {
    environment: Environment,
    profile: Option<String>,
    imds: Imds,
}

impl Chain {
    /// With `profile`, only that profile is asked, as `aws --profile` does.
    pub fn new(environment: Environment, profile: Option<String>, clock: Arc<dyn Clock>) -> Chain {
        let imds = Imds::new(&environment, clock);
        Chain { environment, profile, imds }
    }

    /// The region that the environment or the profile names.
    ///
    /// # Errors
    /// [`CredentialsError::File`] if a file cannot be read.
    pub fn region(&self) -> Result<Option<String>, CredentialsError> {
        let variable = || self.environment.value("AWS_REGION").or_else(|| self.environment.value("AWS_DEFAULT_REGION"));
        if let (None, Some(region)) = (&self.profile, variable()) {
            return Ok(Some(region.to_owned()));
        }
        let profile = Profile::read(&self.environment, self.profile_name())?;
        Ok(profile.and_then(|profile| profile.value("region").map(str::to_owned)))
    }

    fn profile_name(&self) -> &str {
        self.profile.as_deref().or_else(|| self.environment.value("AWS_PROFILE")).unwrap_or("default")
    }

    fn variables(&self) -> Result<Option<Credentials>, CredentialsError> {
        let half = |set: &str, missing: &str| CredentialsError::Half { set: set.to_owned(), missing: missing.to_owned() };
        match (self.environment.value("AWS_ACCESS_KEY_ID"), self.environment.value("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => {
                Ok(Some(Credentials::new(key, secret, self.environment.value("AWS_SESSION_TOKEN").map(str::to_owned))))
            }
            (Some(_), None) => Err(half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
            (None, Some(_)) => Err(half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
            (None, None) => Ok(None),
        }
    }
}

impl Source for Chain {
    fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let mut looked = Vec::new();
        if self.profile.is_none() {
            if let Some(found) = self.variables()? {
                return Ok(found);
            }
            looked.push("the environment (AWS_ACCESS_KEY_ID)".to_owned());
        }
        let name = self.profile_name();
        let is_named = self.profile.is_some() || self.environment.value("AWS_PROFILE").is_some();
        match Profile::read(&self.environment, name)? {
            Some(profile) => {
                if let Some(found) = profile.credentials(name)? {
                    return Ok(found);
                }
            }
            None if is_named => return Err(CredentialsError::NoProfile { profile: name.to_owned() }),
            None => {}
        }
        looked.push(format!("profile `{name}` of ~/.aws"));
        let off = self.environment.value("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if self.profile.is_some() || off {
            return Err(CredentialsError::Nowhere { looked });
        }
        looked.push("this machine's role".to_owned());
        match self.imds.credentials() {
            Err(CredentialsError::Nowhere { .. }) => Err(CredentialsError::Nowhere { looked }),
            // Nobody there: this is no EC2 machine. One that is too busy, or answers nonsense, is an error of its own.
            Err(CredentialsError::Imds { source, .. }) if source.downcast_ref().is_some_and(is_unreachable) => {
                Err(CredentialsError::Nowhere { looked })
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;

    fn chain(variables: &[(&str, &str)], profile: Option<&str>) -> Chain {
        let environment = variables.iter().copied().chain([("AWS_EC2_METADATA_DISABLED", "true")]).collect();
        Chain::new(environment, profile.map(str::to_owned), Arc::new(SystemClock::new()))
    }

    #[test]
    fn the_environment_comes_before_the_profile_and_a_named_profile_before_both() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(home.path().join(".aws")).expect("a folder");
        let write = |file: &str, text: &str| std::fs::write(home.path().join(".aws").join(file), text).expect("it is ours");
        write(
            "config",
            "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-west-2\n[profile sso]\nsso_session = x\n[work2]\nregion=no\n",
        );
        write(
            "credentials",
            "[default]\naws_access_key_id=A\naws_secret_access_key=a\n[work]\naws_access_key_id=B\naws_secret_access_key=b\naws_session_token=t\n[half]\naws_access_key_id=C\n",
        );
        let home = ("HOME", home.path().to_str().expect("it is ASCII"));
        let keys = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"), ("AWS_SESSION_TOKEN", ""), home];
        let found = |variables: &[(&str, &str)], profile| chain(variables, profile).credentials().map(|found| found.key().to_owned());

        assert_eq!(found(&[home], None).ok().as_deref(), Some("A"));
        assert_eq!(found(&keys, None).ok().as_deref(), Some("E"));
        assert_eq!(found(&keys, Some("work")).ok().as_deref(), Some("B"));
        assert_eq!(found(&[home, ("AWS_PROFILE", "work")], None).ok().as_deref(), Some("B"));
        assert_eq!(chain(&[home], None).region().ok().flatten().as_deref(), Some("eu-west-1"));
        assert_eq!(chain(&[home, ("AWS_REGION", "eu-north-1")], Some("work")).region().ok().flatten().as_deref(), Some("eu-west-2"));
        assert_eq!(chain(&[home, ("AWS_REGION", "eu-north-1")], None).region().ok().flatten().as_deref(), Some("eu-north-1"));

        let refused = |variables: &[(&str, &str)], profile| found(variables, profile).expect_err("there is none").to_string();
        let texts = [
            (refused(&[home], Some("none")), "there is no profile `none`"),
            (refused(&[home], Some("work2")), "there is no profile `work2`"),
            (refused(&[home], Some("half")), "aws_secret_access_key of profile `half` is not"),
            (refused(&[home], Some("sso")), "aws configure export-credentials --profile sso"),
            (refused(&[("AWS_ACCESS_KEY_ID", "E"), home], None), "AWS_SECRET_ACCESS_KEY is not"),
            (refused(&[], None), "found none in the environment (AWS_ACCESS_KEY_ID), nor in profile `default` of ~/.aws"),
        ];
        for (text, part) in texts {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_environment_does_not_show_its_values() {
        let shown = format!("{:?}", chain(&[("AWS_SECRET_ACCESS_KEY", "hush")], None));
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hush"), "{shown}");
    }
}
