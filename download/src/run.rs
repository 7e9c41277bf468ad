//! One download from its beginning to its end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plan::wire::DownloadPhase;
use plan::words::counted;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::error::DownloadError;
use crate::fetch::{Fetcher, small, unchecked};
use crate::files;
use crate::folder::{Folder, Lock, Record};
use crate::http::{Client, Timeouts};
use crate::progress::Progress;
use crate::source::{Listing, Remote, Source};

/// Files that are fetched at a time.
const AT_A_TIME: usize = 4;

/// What a download is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From where.
    pub source: Source,
    /// The commit that is to be read, if it is known.
    pub commit: Option<String>,
    /// Folder that holds the checkpoint when it is whole.
    pub folder: PathBuf,
    /// How failures are met.
    pub backoff: Backoff,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// How often a lock that another pod has is looked at.
    pub lock_poll: Duration,
}

/// Downloads, unless everything is there.
///
/// # Errors
/// If it cannot be downloaded: now, or as it is asked for.
pub async fn run(settings: &Settings, progress: &Progress) -> Result<Record, DownloadError> {
    let folder = Folder::new(&settings.folder);
    if let Some(record) = there(settings, &folder)? {
        return Ok(done(progress, record));
    }
    let _lock = lock(settings, &folder, progress).await?;
    // Whoever had the lock before has downloaded it.
    if let Some(record) = there(settings, &folder)? {
        return Ok(done(progress, record));
    }
    download(settings, folder, progress).await.map(|record| done(progress, record))
}

fn done(progress: &Progress, record: Record) -> Record {
    progress.complete(record.commit.as_deref(), record.bytes());
    record
}

/// What is there already, if it is whole and what is asked for.
fn there(settings: &Settings, folder: &Folder) -> Result<Option<Record>, DownloadError> {
    let record = folder.whole()?;
    let other = |found: String, asked: String| {
        Err(DownloadError::OtherSource { folder: settings.folder.clone(), found, asked })
    };
    match record {
        None if settings.folder.exists() && !folder.is_ours()? => {
            other("files that were not downloaded into it".to_owned(), settings.source.name())
        }
        None => Ok(None),
        Some(record) if record.source != settings.source.name() => other(record.source, settings.source.name()),
        Some(record) => match (&settings.commit, &record.commit) {
            (Some(asked), Some(found)) if asked != found => {
                other(format!("commit {found}"), format!("commit {asked}, with which this deployment began"))
            }
            _ => Ok(Some(record)),
        },
    }
}

async fn lock(settings: &Settings, folder: &Folder, progress: &Progress) -> Result<Lock, DownloadError> {
    let mut is_told = false;
    loop {
        if let Some(lock) = folder.try_lock()? {
            return Ok(lock);
        }
        if !is_told {
            tracing::info!(folder = %settings.folder.display(), "another pod downloads into this folder");
            progress.turn(DownloadPhase::Waiting);
            is_told = true;
        }
        tokio::time::sleep(settings.lock_poll).await;
    }
}

async fn download(settings: &Settings, folder: Folder, progress: &Progress) -> Result<Record, DownloadError> {
    progress.turn(DownloadPhase::Listing);
    let source = &settings.source;
    let client = Client::new(settings.timeouts)?;
    // What was begun is gone on with, whatever a branch stands for by now.
    let begun = folder.begun()?.filter(|record| record.source == source.name()).and_then(|record| record.commit);
    let commit = settings.commit.clone().or(begun);
    let again = Again { settings, progress };
    let Listing { commit, files } = again.until_it_works(|| source.list(&client, commit.as_deref())).await?;
    let commit = commit.as_deref();
    files::check_names(files.iter().map(|file| file.name.as_str()))?;
    let name = source.name();
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let beside = files::beside_weights(&name, &names)?;
    let find = |name: &String| files.iter().find(|file| file.name == *name).cloned();
    let describe = async |names: &[String]| {
        let mut described = Vec::new();
        for file in names.iter().filter_map(find) {
            described.push(again.until_it_works(|| source.describe(&client, commit, file.clone())).await?);
        }
        Ok::<Vec<Remote>, DownloadError>(described)
    };
    let mut files = describe(&beside).await?;
    let fetcher = Arc::new(Fetcher {
        client: client.clone(),
        source: source.clone(),
        commit: commit.map(str::to_owned),
        folder: folder.clone(),
        progress: progress.clone(),
        backoff: settings.backoff,
    });
    // The index says which weights are read, so it comes before them.
    let index = files.iter().find(|file| file.name == files::INDEX).cloned();
    let index = match index {
        Some(file) => {
            folder.begin_first(&Record::new(name.clone(), commit.map(str::to_owned), std::slice::from_ref(&file)))?;
            fetcher.fetch(&file, 0).await?;
            Some(small(&folder, files::INDEX)?)
        }
        None => None,
    };
    files.extend(describe(&files::weights(&name, &names, index.as_deref())?).await?);
    let record = Record::new(name, commit.map(str::to_owned), &files);
    folder.begin(&record)?;
    let there = record.files.iter().map(|(name, file)| folder.bytes(name, file.size)).sum::<Result<u64, _>>()?;
    let total = record.bytes();
    folder.check_space(total.saturating_sub(there))?;
    for file in unchecked(&files) {
        tracing::warn!(file, "the source tells no checksum of it: its size alone is checked");
    }
    tracing::info!(source = source.name(), commit, files = files.len(), bytes = total, there, "downloading");
    progress.begin(commit, there, total);
    all(&fetcher, files.clone()).await?;
    if commit.is_none() {
        let listed = again.until_it_works(|| source.list(&client, None)).await?;
        unchanged(&files, &listed.files)?;
    }
    folder.finish()?;
    tracing::info!("{} downloaded", counted(record.files.len(), "file"));
    Ok(record)
}

/// Refuses files of which one was replaced while others were read: each is right by itself, and together they are of no model.
fn unchanged(files: &[Remote], now: &[Remote]) -> Result<(), DownloadError> {
    let tag = |file: &Remote| now.iter().find(|listed| listed.name == file.name).map(|listed| listed.tag.clone());
    let is_other = |file: &&Remote| file.tag.is_some() && tag(file).is_none_or(|tag| tag.is_some() && tag != file.tag);
    files.iter().find(is_other).map_or(Ok(()), |file| Err(DownloadError::Changed { file: file.name.clone() }))
}

/// Fetches all files, some at a time; the first that cannot be fetched ends it.
async fn all(fetcher: &Arc<Fetcher>, files: Vec<Remote>) -> Result<(), DownloadError> {
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let mut tasks = JoinSet::new();
    for (place, file) in files.into_iter().enumerate() {
        let (fetcher, turns) = (Arc::clone(fetcher), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            fetcher.fetch(&file, place).await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(outcome) => outcome?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unreachable!("no task is aborted before an error is returned"),
            },
        }
    }
    Ok(())
}

/// Tries again what may work later.
struct Again<'a> {
    settings: &'a Settings,
    progress: &'a Progress,
}

impl Again<'_> {
    async fn until_it_works<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, DownloadError>
    where
        F: Future<Output = Result<T, DownloadError>>,
    {
        let backoff = self.settings.backoff;
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(found) => return Ok(found),
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => error,
            };
            failures += 1;
            if failures >= backoff.attempts {
                return Err(DownloadError::GivenUp { attempts: failures, last: Box::new(error) });
            }
            let wait = backoff.wait(failures, error.asked_wait(), 0);
            tracing::warn!(%error, seconds = wait.as_secs_f32(), "tried again");
            self.progress.trouble(error.to_string());
            tokio::time::sleep(wait).await;
        }
    }
}
