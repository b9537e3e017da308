//! Export and import of a client's session tokens.

use stead_types::{Error, SessionTokens};

use crate::Client;

impl Client {
    /// Returns the session tokens of all tenants of this client: as text, with `to_string`, for a cookie or a header,
    /// so that the process that takes the next request reads at least what was written and read here.
    ///
    /// ```no_run
    /// # async fn example(client: stead_client::Client, next: stead_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let cookie = client.export_tokens()?.to_string();
    /// // In another process, perhaps of another region:
    /// next.import_tokens(&cookie.parse()?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// More tenants than one request may carry. Then carry the tokens of the request's own tenants:
    ///
    /// ```no_run
    /// # fn example(client: &stead_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tokens = stead_client::SessionTokens::default();
    /// for tenant in ["acme", "brix"] {
    ///     if let Some(seen) = client.tenant(tenant)?.token() {
    ///         tokens.add(seen)?;
    ///     }
    /// }
    /// let cookie = tokens.to_string();
    /// # Ok(()) }
    /// ```
    pub fn export_tokens(&self) -> Result<SessionTokens, Error> {
        let state = self.state();
        let sessions = state.sessions.lock();
        state
            .imported
            .with(sessions.values().filter_map(|session| session.token()))
    }

    /// Adds the session tokens of another client: reads at [`crate::Consistency::Session`] show at least what they have
    /// seen. The client's own tokens still count. This holds for everything that shares the client; where each request
    /// brings its own tokens, read with [`crate::Consistency::Tokens`] instead.
    ///
    /// # Errors
    ///
    /// More tenants than one request may carry, together with those imported before: nothing is imported.
    pub fn import_tokens(&self, tokens: &SessionTokens) -> Result<(), Error> {
        self.state().imported.merge(tokens)
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{ErrorKind, SessionToken, TenantNumber, TenantTime};

    use super::*;
    use crate::Config;

    fn token(tenant: u64, revision: &str) -> SessionToken {
        SessionToken {
            tenant: TenantNumber::new(tenant),
            revision: revision.parse().unwrap(),
        }
    }

    fn client() -> Client {
        Client::lazy(Config::new(["127.0.0.1:1"])).unwrap()
    }

    #[tokio::test]
    async fn imported_tokens_are_merged_with_own_tokens() {
        let (one, other) = (client(), client());
        for (name, seen) in [("acme", token(1, "1.5")), ("brix", token(2, "1.9"))] {
            one.tenant(name).unwrap().session().observe_token(seen, TenantTime(1));
        }
        let cookie = one.export_tokens().unwrap().to_string();
        other.import_tokens(&cookie.parse().unwrap()).unwrap();
        let imported = &other.state().imported;
        assert_eq!(
            imported.required(None),
            [token(1, "1.5"), token(2, "1.9")],
            "whichever it is"
        );
        assert_eq!(imported.required(Some(token(2, "1.3"))), [token(2, "1.9")]);
        assert_eq!(imported.required(Some(token(2, "2.1"))), [token(2, "2.1")]);
        assert_eq!(imported.required(Some(token(3, "1.1"))), [token(3, "1.1")]);
        other.tenant("acme").unwrap().resume(token(1, "1.7")).unwrap();
        let both = other.export_tokens().unwrap();
        assert_eq!(both.iter().collect::<Vec<_>>(), [token(1, "1.7"), token(2, "1.9")]);
    }

    #[tokio::test]
    async fn token_of_another_tenant_has_no_effect() {
        let client = client();
        let (acme, brix) = (client.tenant("acme").unwrap(), client.tenant("brix").unwrap());
        acme.session().observe_token(token(7, "1.5"), TenantTime(50));
        for number in [7, 900] {
            acme.resume(token(number, "1.3")).unwrap();
            brix.resume(token(number, "1.3")).unwrap();
        }
        assert_eq!(acme.token(), Some(token(7, "1.5")));
        assert_eq!(brix.token(), None);
        // The first response says which number a name has, even after a token with a higher number.
        brix.session().observe_token(token(8, "1.1"), TenantTime(10));
        acme.session().observe_token(token(7, "1.6"), TenantTime(60));
        assert_eq!(brix.token(), Some(token(8, "1.1")));
        assert_eq!(
            (acme.token(), acme.session().time()),
            (Some(token(7, "1.6")), TenantTime(60))
        );
        acme.resume(token(7, "1.9")).unwrap();
        assert_eq!(acme.token(), Some(token(7, "1.9")));
    }

    #[tokio::test]
    async fn export_of_too_many_tokens_is_rejected() {
        let client = client();
        for number in 1..=65 {
            let session = &client.tenant(&format!("t{number}")).unwrap();
            session.session().observe_token(token(number, "1.1"), TenantTime(1));
        }
        let error = client.export_tokens().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid { field: "tokens".into() });
        assert!(error.message.contains("64 tenants"), "{error}");
    }
}
