//! Users by name, from /etc/passwd and /etc/group: the shipped binary is static and knows no other source.

use crate::drivers::syscall::{self, Identity};
use std::{fs, io};

/// Who a task runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub home: String,
    pub identity: Identity,
}

impl User {
    /// What a child of a process with the effective uid `ours` has to take on. Only root may: [`find`] lets others name nobody but
    /// themselves, whom their children are already, and even the groups one has need CAP_SETGID to be set (setgroups(2)).
    pub fn to_become(&self, ours: u32) -> Option<Identity> {
        (ours == 0).then(|| self.identity.clone())
    }
}

/// A name, or a number that is somebody's.
///
/// # Errors
/// There is no such user, or this process may not become it; the words are for a person.
pub fn find(wanted: &str) -> Result<User, String> {
    let unread = |path: &'static str| move |error: io::Error| format!("cannot read {path}: {error}");
    let users = fs::read_to_string("/etc/passwd").map_err(unread("/etc/passwd"))?;
    let groups = fs::read_to_string("/etc/group").map_err(unread("/etc/group"))?;
    let user = look_up(wanted, &users, &groups).ok_or_else(|| format!("user `{wanted}` is not in /etc/passwd"))?;
    let ours = syscall::effective_uid();
    if ours != 0 && ours != user.identity.uid {
        return Err(format!("cannot become user `{wanted}`: this node does not run as root"));
    }
    Ok(user)
}

fn look_up(wanted: &str, users: &str, groups: &str) -> Option<User> {
    // name:password:uid:gid:comment:home:shell (passwd(5))
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = fields.into_iter().find(|user| user.len() >= 7 && (user[0] == wanted || user[2] == wanted))?;
    let gid = fields[3].parse().ok()?;
    // name:password:gid:members (group(5))
    let mut belongs = vec![gid];
    for group in groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|group| group.len() >= 4) {
        if group[3].split(',').any(|member| member == fields[0])
            && let Ok(gid) = group[2].parse()
        {
            belongs.push(gid);
        }
    }
    belongs.dedup();
    let identity = Identity { uid: fields[2].parse().ok()?, gid, groups: belongs };
    Some(User { name: fields[0].to_owned(), home: fields[5].to_owned(), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_own_group_and_those_that_list_it() {
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:Web:/var/www:/bin/false\nbroken\n";
        let groups = "root:x:0:\nweb:x:33:\ntls:x:50:mail,web\nmail:x:8:mail\n";
        let web = look_up("web", users, groups).expect("it is listed");
        assert_eq!(web.identity, Identity { uid: 33, gid: 33, groups: vec![33, 50] });
        assert_eq!(web.home, "/var/www");
        assert_eq!(look_up("33", users, groups), Some(web));
        assert_eq!(look_up("nobody", users, groups), None);
    }

    #[test]
    fn only_root_has_to_become_somebody() {
        let identity = Identity { uid: 33, gid: 33, groups: vec![33, 50] };
        let web = User { name: "web".into(), home: "/var/www".into(), identity: identity.clone() };
        assert_eq!(web.to_become(0), Some(identity));
        assert_eq!(web.to_become(33), None, "it is web already");
    }
}
