//! The client that the section `ctl` describes: for people, and for the calls of members among themselves.

use crate::basic::Credentials;
use crate::client::{Client, Tls};
use settings::Ctl;
use tls::{Authorities, Identity, Trust};

impl Client {
    /// For a person: a certificate must come from an authority that is known here, and be for the name that was called.
    #[must_use]
    pub fn for_people(ctl: &Ctl, insecure: bool) -> Client {
        let authorities = ctl.cacert.clone().map_or(Authorities::System, Authorities::File);
        let trust = if insecure || ctl.insecure { Trust::Anybody } else { Trust::Name(authorities) };
        Client::new(credentials(ctl), Tls { trust, identity: identity(ctl) })
    }

    /// For a member that calls another, whose URL is often a bare address: the name is not checked, and without an
    /// authority to check against nothing is.
    #[must_use]
    pub fn for_members(ctl: &Ctl) -> Client {
        let trust = match &ctl.cacert {
            Some(cacert) if !ctl.insecure => Trust::Chain(Authorities::File(cacert.clone())),
            Some(_) | None => Trust::Anybody,
        };
        Client::new(credentials(ctl), Tls { trust, identity: identity(ctl) })
    }
}

fn credentials(ctl: &Ctl) -> Option<Credentials> {
    let given = ctl.authentication.as_ref()?;
    Some(Credentials { username: given.username.clone(), password: given.password.reveal().to_owned() })
}

fn identity(ctl: &Ctl) -> Option<Identity> {
    let password = ctl.keyfile_password.as_ref().map(|secret| secret.reveal().to_owned());
    Some(Identity { certfile: ctl.certfile.clone()?, keyfile: ctl.keyfile.clone(), password })
}
