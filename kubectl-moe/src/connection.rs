//! How to reach the cluster: the options that kubectl has for it, by the same names and with the same meaning, over the
//! kubeconfig.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Uri;
use jiff::SignedDuration;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Client, Config};

use crate::PluginError;

/// Name of what the command line alone describes.
const COMMAND_LINE: &str = "command-line";

/// A client of what is at a URL: of `what`, in words.
pub(crate) fn of_url(url: &str, what: &'static str) -> Result<Client, PluginError> {
    let parsed = url.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
    let uri = parsed.ok_or_else(|| PluginError::Url { url: operator::words::shorten(url), what })?;
    let mut config = Config::new(uri);
    config.default_retry = false;
    Client::try_from(config).map_err(|source| PluginError::Client(Box::new(source)))
}

/// kubectl's options of the cluster.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Options of the cluster")]
pub(crate) struct Connection {
    /// Namespace of the deployment; that of the context if left out
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Context of the kubeconfig to use
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig file to use; $KUBECONFIG or ~/.kube/config if left out
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Cluster of the kubeconfig to use
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// User of the kubeconfig to use
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Address and port of the API server
    #[arg(long, short, value_name = "URL")]
    server: Option<String>,
    /// Do not check the certificate of the API server, which makes the connection insecure
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// File with the certificate authority of the API server
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// Name that the certificate of the API server must have; that of its address if left out
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Do not have answers of the API server compressed
    #[arg(long)]
    disable_compression: bool,
    /// Bearer token for the API server
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// User name for basic authentication
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Password for basic authentication
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,
    /// File with a client certificate
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// File with the key of the client certificate
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// User to act as
    #[arg(long = "as", value_name = "USER")]
    impersonate: Option<String>,
    /// Group to act as a member of; may be given several times
    #[arg(long = "as-group", value_name = "GROUP")]
    impersonate_groups: Vec<String>,
    /// UID to act as
    #[arg(long = "as-uid", value_name = "UID")]
    impersonate_uid: Option<String>,
    /// How long an answer may take, such as 1s, 2m or 3h; 0 is for ever
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0")]
    request_timeout: Timeout,
}

/// A time that an answer may take; `None` is for ever.
type Timeout = Option<Duration>;

/// `1s`, `2m`, `1h30m`, and seconds without a unit, as kubectl takes them.
fn duration(text: &str) -> Result<Timeout, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()),
    };
    let duration = parsed.ok_or("must be a number of seconds, or a time such as 500ms, 1s, 2m or 3h")?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

impl Connection {
    /// These options, and where they are not given, those of `outer`, which came before the command.
    pub fn or(self, outer: Self) -> Self {
        let Self {
            namespace,
            context,
            kubeconfig,
            cluster,
            user,
            server,
            insecure_skip_tls_verify,
            certificate_authority,
            tls_server_name,
            disable_compression,
            token,
            username,
            password,
            client_certificate,
            client_key,
            impersonate,
            impersonate_groups,
            impersonate_uid,
            request_timeout,
        } = self;
        let groups = if impersonate_groups.is_empty() { outer.impersonate_groups } else { impersonate_groups };
        Self {
            namespace: namespace.or(outer.namespace),
            context: context.or(outer.context),
            kubeconfig: kubeconfig.or(outer.kubeconfig),
            cluster: cluster.or(outer.cluster),
            user: user.or(outer.user),
            server: server.or(outer.server),
            insecure_skip_tls_verify: insecure_skip_tls_verify || outer.insecure_skip_tls_verify,
            certificate_authority: certificate_authority.or(outer.certificate_authority),
            tls_server_name: tls_server_name.or(outer.tls_server_name),
            disable_compression: disable_compression || outer.disable_compression,
            token: token.or(outer.token),
            username: username.or(outer.username),
            password: password.or(outer.password),
            client_certificate: client_certificate.or(outer.client_certificate),
            client_key: client_key.or(outer.client_key),
            impersonate: impersonate.or(outer.impersonate),
            impersonate_groups: groups,
            impersonate_uid: impersonate_uid.or(outer.impersonate_uid),
            request_timeout: request_timeout.or(outer.request_timeout),
        }
    }

    /// How long an answer may take.
    pub const fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout
    }

    /// A client, and the namespace that is meant where none is named.
    pub async fn client(&self) -> Result<(Client, String), PluginError> {
        let mut config = self.config().await?;
        // A coordinator that cannot serve says so with a status that would else be asked for again and again.
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|source| PluginError::Client(Box::new(source)))?;
        Ok((client, namespace))
    }

    async fn config(&self) -> Result<Config, PluginError> {
        let found = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let is_given = self.kubeconfig.is_some() || self.context.is_some();
        let kubeconfig = match found {
            Ok(kubeconfig) => kubeconfig,
            Err(_) if self.server.is_some() && !is_given => Kubeconfig::default(),
            // In a pod, its service account is as good as a kubeconfig.
            Err(error) if is_given => return Err(error.into()),
            Err(error) => {
                let mut config = Config::incluster().map_err(|_| error)?;
                self.impersonate(&mut config.auth_info);
                return Ok(config);
            }
        };
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        Ok(Config::from_custom_kubeconfig(self.over(kubeconfig), &options).await?)
    }

    /// The kubeconfig with what the command line says in the place of what it says.
    fn over(&self, mut kubeconfig: Kubeconfig) -> Kubeconfig {
        if self.server.is_some() && self.context.is_none() && kubeconfig.current_context.is_none() {
            let context = Context { cluster: COMMAND_LINE.to_owned(), ..Context::default() };
            kubeconfig.current_context = Some(COMMAND_LINE.to_owned());
            kubeconfig.contexts.push(NamedContext {
                name: COMMAND_LINE.to_owned(),
                context: Some(context),
                ..NamedContext::default()
            });
            let cluster = Some(Cluster::default());
            kubeconfig.clusters.push(NamedCluster {
                name: COMMAND_LINE.to_owned(),
                cluster,
                ..NamedCluster::default()
            });
        }
        let wanted = self.context.as_ref().or(kubeconfig.current_context.as_ref());
        // A context or cluster that does not exist is refused where the kubeconfig is read.
        let Some(place) = kubeconfig.contexts.iter().position(|named| Some(&named.name) == wanted) else {
            return kubeconfig;
        };
        let context = kubeconfig.contexts[place].context.get_or_insert_default();
        let cluster = self.cluster.clone().unwrap_or_else(|| context.cluster.clone());
        let user = self.user.clone().or_else(|| context.user.clone()).unwrap_or_else(|| COMMAND_LINE.to_owned());
        context.user = Some(user.clone());
        if let Some(named) = kubeconfig.clusters.iter_mut().find(|named| named.name == cluster) {
            self.over_cluster(named.cluster.get_or_insert_default());
        }
        if !kubeconfig.auth_infos.iter().any(|named| named.name == user) && user == COMMAND_LINE {
            kubeconfig.auth_infos.push(NamedAuthInfo { name: user.clone(), ..NamedAuthInfo::default() });
        }
        if let Some(named) = kubeconfig.auth_infos.iter_mut().find(|named| named.name == user) {
            self.over_user(named.auth_info.get_or_insert_default());
        }
        kubeconfig
    }

    fn over_cluster(&self, cluster: &mut Cluster) {
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
            // A name is that of the server it was written for.
            cluster.tls_server_name = None;
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
        if let Some(path) = &self.certificate_authority {
            cluster.certificate_authority = Some(path.display().to_string());
            cluster.certificate_authority_data = None;
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if self.disable_compression {
            cluster.disable_compression = Some(true);
        }
    }

    /// What identifies somebody on the command line takes the place of all that the kubeconfig has for it.
    fn over_user(&self, user: &mut AuthInfo) {
        let Self { token, username, password, client_certificate, client_key, .. } = self;
        if token.is_some() || username.is_some() || client_certificate.is_some() {
            *user = AuthInfo {
                impersonate: user.impersonate.take(),
                impersonate_groups: user.impersonate_groups.take(),
                impersonate_uid: user.impersonate_uid.take(),
                impersonate_user_extra: user.impersonate_user_extra.take(),
                ..AuthInfo::default()
            };
        }
        if let Some(token) = token {
            user.token = Some(token.clone().into());
        }
        if let Some(name) = username {
            user.username = Some(name.clone());
        }
        if let Some(password) = password {
            user.password = Some(password.clone().into());
        }
        if let Some(path) = client_certificate {
            user.client_certificate = Some(path.display().to_string());
        }
        if let Some(path) = client_key {
            user.client_key = Some(path.display().to_string());
            user.client_key_data = None;
        }
        self.impersonate(user);
    }

    fn impersonate(&self, user: &mut AuthInfo) {
        if let Some(name) = &self.impersonate {
            user.impersonate = Some(name.clone());
        }
        if !self.impersonate_groups.is_empty() {
            user.impersonate_groups = Some(self.impersonate_groups.clone());
        }
        if let Some(uid) = &self.impersonate_uid {
            user.impersonate_uid = Some(uid.clone());
        }
    }
}

#[cfg(test)]
mod tests;
