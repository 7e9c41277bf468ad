//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser, ValueEnum};
use plan::wire::process::variable;

use crate::backoff::Backoff;
use crate::error::DownloadError;
use crate::http::Timeouts;
use crate::hub::Hub;
use crate::run::Settings;
use crate::s3::{Bucket, Keys};
use crate::source::Source;

/// Downloads a checkpoint: what the runtime reads of it, into a folder that is there when it is whole. Proxies are those of
/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
#[derive(Debug, Parser)]
#[command(name = "swiftbalancer-download", version, group = ArgGroup::new("source").required(true))]
pub struct Arguments {
    /// Repository of a hub of models, OWNER/NAME.
    #[arg(long, group = "source")]
    hugging_face: Option<String>,
    /// Branch, tag or commit of the repository.
    #[arg(long, default_value = "main", conflicts_with = "s3")]
    revision: String,
    /// The commit that the revision has to stand for.
    #[arg(long, conflicts_with = "s3")]
    commit: Option<String>,
    /// Folder of a bucket, `s3://BUCKET/PREFIX`.
    #[arg(long, group = "source")]
    s3: Option<String>,
    /// Region of the bucket.
    #[arg(long, conflicts_with = "hugging_face")]
    region: Option<String>,
    /// URL of the hub or of the store, if it is not the public one.
    #[arg(long)]
    endpoint: Option<String>,
    /// Folder that the checkpoint is downloaded into.
    #[arg(long)]
    folder: PathBuf,
    /// Address at which it says how far it is.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// How logs are written.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Token for the hub.
    #[arg(long, env = variable::HUB_TOKEN, hide_env_values = true, hide = true)]
    token: Option<String>,
    /// Name of the key for the store.
    #[arg(long, env = variable::S3_KEY_ID, hide_env_values = true, hide = true)]
    key_id: Option<String>,
    /// Key for the store.
    #[arg(long, env = variable::S3_SECRET_KEY, hide_env_values = true, hide = true)]
    secret_key: Option<String>,
    /// What temporary keys come with.
    #[arg(long, env = variable::S3_SESSION_TOKEN, hide_env_values = true, hide = true)]
    session_token: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For persons.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl TryFrom<Arguments> for Settings {
    type Error = DownloadError;

    fn try_from(arguments: Arguments) -> Result<Self, DownloadError> {
        let Arguments { hugging_face, revision, commit, s3, region, endpoint, folder, .. } = arguments;
        let secret = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let source = if let Some(url) = s3 {
            let keys = secret(arguments.key_id).zip(secret(arguments.secret_key));
            let session = secret(arguments.session_token);
            let keys = keys.map(|(id, secret)| Keys { id, secret, session });
            Source::S3(Bucket::new(endpoint.as_deref(), &url, region.as_deref(), keys)?)
        } else {
            let (repository, token) = (hugging_face.unwrap_or_default(), secret(arguments.token));
            Source::Hub(Hub::new(endpoint.as_deref(), &repository, &revision, token.as_deref())?)
        };
        Ok(Self {
            source,
            commit,
            folder,
            backoff: Backoff::default(),
            timeouts: Timeouts::default(),
            lock_poll: Duration::from_secs(2),
        })
    }
}
