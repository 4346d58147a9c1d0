//! IAM, as far as a machine needs it: a role that says what it may do, and the profile that gives it to a machine.
//!
//! All names are global in an account, and what was made is seen everywhere only after some seconds: RunInstances may
//! answer `InvalidParameterValue` for a profile that is ten seconds old.

use crate::{Client, Error, Tags, form::Form, reply::Element, retry::Repeat};

/// Who may take on a role.
const EC2_MAY_ASSUME: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"SERVICE"},"Action":"sts:AssumeRole"}]}"#;
/// Roles of one page.
const PAGE: u32 = 100;

/// What a machine can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// `arn:aws:iam::123456789012:role/…`
    pub arn: String,
}

/// What gives a role to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceProfile {
    /// Its name, which [`crate::RunInstances::instance_profile`] takes.
    pub name: String,
    /// `arn:aws:iam::123456789012:instance-profile/…`
    pub arn: String,
    /// Names of its roles: one, or none yet.
    pub roles: Vec<String>,
}

impl Client {
    /// Makes a role that EC2 machines may take on, and that may do nothing yet.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::EntityAlreadyExists`].
    pub fn create_role(&self, name: &str, tags: &Tags) -> Result<Role, Error> {
        let mut form = self.iam_form("CreateRole")?;
        form.put("RoleName", name);
        let service = if self.partition() == "aws-cn" { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" };
        form.put("AssumeRolePolicyDocument", &EC2_MAY_ASSUME.replace("SERVICE", service));
        iam_tags(&mut form, tags);
        self.ask_iam(&form, Repeat::Harmless, |result| read_role(result.child("Role").unwrap_or(result)))
    }

    /// A role by its name; `None` if there is none.
    ///
    /// # Errors
    /// As every call.
    pub fn role(&self, name: &str) -> Result<Option<Role>, Error> {
        let mut form = self.iam_form("GetRole")?;
        form.put("RoleName", name);
        found(self.ask_iam(&form, Repeat::Harmless, |result| read_role(result.child("Role").unwrap_or(result))))
    }

    /// Says what a role may do: `document` is an IAM policy in JSON, which replaces the one of this name.
    ///
    /// # Errors
    /// As every call.
    pub fn put_role_policy(&self, role: &str, policy: &str, document: &str) -> Result<(), Error> {
        let mut form = self.iam_form("PutRolePolicy")?;
        form.put("RoleName", role);
        form.put("PolicyName", policy);
        form.put("PolicyDocument", document);
        self.ask_iam(&form, Repeat::Harmless, |_| Ok(()))
    }

    /// Names of a role's own policies.
    ///
    /// # Errors
    /// As every call.
    pub fn role_policies(&self, role: &str) -> Result<Vec<String>, Error> {
        let mut form = self.iam_form("ListRolePolicies")?;
        form.put("RoleName", role);
        form.number("MaxItems", PAGE.into());
        // A role has at most 10 KiB of policies: one page.
        self.ask_iam(&form, Repeat::Harmless, |result| Ok(result.texts("PolicyNames")))
    }

    /// Takes a policy away; one that is not there is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn delete_role_policy(&self, role: &str, policy: &str) -> Result<(), Error> {
        let mut form = self.iam_form("DeleteRolePolicy")?;
        form.put("RoleName", role);
        form.put("PolicyName", policy);
        found(self.ask_iam(&form, Repeat::Harmless, |_| Ok(()))).map(|_| ())
    }

    /// Deletes a role; one that is not there is no error.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::DeleteConflict`] while it has policies or is in a profile.
    pub fn delete_role(&self, name: &str) -> Result<(), Error> {
        let mut form = self.iam_form("DeleteRole")?;
        form.put("RoleName", name);
        found(self.ask_iam(&form, Repeat::Harmless, |_| Ok(()))).map(|_| ())
    }

    /// Makes an empty profile.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::EntityAlreadyExists`].
    pub fn create_instance_profile(&self, name: &str, tags: &Tags) -> Result<InstanceProfile, Error> {
        let mut form = self.iam_form("CreateInstanceProfile")?;
        form.put("InstanceProfileName", name);
        iam_tags(&mut form, tags);
        self.ask_iam(&form, Repeat::Harmless, |result| read_profile(result.child("InstanceProfile").unwrap_or(result)))
    }

    /// A profile by its name; `None` if there is none.
    ///
    /// # Errors
    /// As every call.
    pub fn instance_profile(&self, name: &str) -> Result<Option<InstanceProfile>, Error> {
        let mut form = self.iam_form("GetInstanceProfile")?;
        form.put("InstanceProfileName", name);
        found(self.ask_iam(&form, Repeat::Harmless, |result| read_profile(result.child("InstanceProfile").unwrap_or(result))))
    }

    /// Puts a role into a profile.
    ///
    /// # Errors
    /// As every call; `LimitExceeded` if it has one already.
    pub fn add_role_to_instance_profile(&self, profile: &str, role: &str) -> Result<(), Error> {
        self.profile_role("AddRoleToInstanceProfile", profile, role)
    }

    /// Takes a role out of a profile; one that is not in it is no error.
    ///
    /// # Errors
    /// As every call.
    pub fn remove_role_from_instance_profile(&self, profile: &str, role: &str) -> Result<(), Error> {
        found(self.profile_role("RemoveRoleFromInstanceProfile", profile, role)).map(|_| ())
    }

    fn profile_role(&self, action: &'static str, profile: &str, role: &str) -> Result<(), Error> {
        let mut form = self.iam_form(action)?;
        form.put("InstanceProfileName", profile);
        form.put("RoleName", role);
        self.ask_iam(&form, Repeat::Harmless, |_| Ok(()))
    }

    /// Deletes a profile; one that is not there is no error.
    ///
    /// # Errors
    /// As every call; [`crate::ErrorCode::DeleteConflict`] while it has a role.
    pub fn delete_instance_profile(&self, name: &str) -> Result<(), Error> {
        let mut form = self.iam_form("DeleteInstanceProfile")?;
        form.put("InstanceProfileName", name);
        found(self.ask_iam(&form, Repeat::Harmless, |_| Ok(()))).map(|_| ())
    }
}

/// `None` instead of "there is no such thing".
fn found<V>(result: Result<V, Error>) -> Result<Option<V>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// IAM's lists have `.member`.
fn iam_tags(form: &mut Form, tags: &Tags) {
    for (index, (key, value)) in tags.iter().enumerate() {
        form.put(&format!("Tags.member.{}.Key", index + 1), key);
        form.put(&format!("Tags.member.{}.Value", index + 1), value);
    }
}

fn read_role(role: Element<'_, '_>) -> Result<Role, Error> {
    Ok(Role { name: role.need("RoleName")?, arn: role.need("Arn")? })
}

fn read_profile(profile: Element<'_, '_>) -> Result<InstanceProfile, Error> {
    let roles = profile.items("Roles").filter_map(|role| role.string("RoleName")).collect();
    Ok(InstanceProfile { name: profile.need("InstanceProfileName")?, arn: profile.need("Arn")?, roles })
}
