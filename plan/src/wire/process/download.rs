//! Command line of the program that downloads checkpoints.

use super::{everywhere, port};

/// Where a checkpoint is downloaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownloadSource {
    /// A repository of a hub of models.
    HuggingFace {
        /// `OWNER/NAME`, or `NAME` alone.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// The commit that the revision stood for when it was asked for first.
        commit: Option<String>,
        /// URL of the hub, if it is not the public one.
        endpoint: Option<String>,
    },
    /// Objects of a store that speaks S3.
    S3 {
        /// `s3://BUCKET/PREFIX`.
        url: String,
        /// Region of the bucket, for signatures.
        region: Option<String>,
        /// URL of the store, if it is not Amazon's.
        endpoint: Option<String>,
    },
}

/// What a download is started with. It answers on [`port::ADMIN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadCommand {
    /// From where.
    pub source: DownloadSource,
    /// Folder that holds the checkpoint when it is complete, and is not there before.
    pub folder: String,
    /// How logs are written.
    pub log_format: Option<&'static str>,
}

impl DownloadCommand {
    /// The command line after the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Self { source, folder, log_format } = self;
        let own = match source {
            DownloadSource::HuggingFace { repository, revision, commit, endpoint } => vec![
                ("hugging-face", Some(repository)),
                ("revision", Some(revision)),
                ("commit", commit.as_ref()),
                ("endpoint", endpoint.as_ref()),
            ],
            DownloadSource::S3 { url, region, endpoint } => {
                vec![("s3", Some(url)), ("region", region.as_ref()), ("endpoint", endpoint.as_ref())]
            }
        };
        let listen = everywhere(port::ADMIN).to_string();
        let common = [("folder", Some(folder.as_str())), ("listen", Some(&listen)), ("log-format", *log_format)];
        let options = own.into_iter().map(|(option, value)| (option, value.map(String::as_str))).chain(common);
        let set = options.filter_map(|(option, value)| Some([format!("--{option}"), value?.to_owned()]));
        set.flatten().collect()
    }
}
