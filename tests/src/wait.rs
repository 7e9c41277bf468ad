//! Waiting for conditions, with a limit and a reason when it is reached.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again: often enough not to blur the times that tests print, seldom enough not to load two cores.
const INTERVAL: Duration = Duration::from_millis(100);

/// Calls `probe` until it gives a value; its error says what is not so yet.
///
/// # Errors
/// If there is no value `within` the time; holds the probe's last error.
pub async fn until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        let error = match tokio::time::timeout(within, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        if began.elapsed() >= within {
            bail!("waited {} s in vain until {what}: {error}", within.as_secs());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn the_error_of_a_wait_in_vain_says_what_was_missing_last() {
        let mut asked = 0;
        let error = until("it is so", Duration::ZERO, async || {
            asked += 1;
            Err::<(), _>(anyhow!("asked {asked} times"))
        });
        assert_eq!(error.await.unwrap_err().to_string(), "waited 0 s in vain until it is so: asked 1 times");
    }

    #[tokio::test]
    async fn a_probe_is_asked_again_until_it_has_a_value() {
        let mut asked = 0;
        let value = until("it is so", Duration::from_secs(5), async || {
            asked += 1;
            if asked < 3 { Err(anyhow!("not yet")) } else { Ok(asked) }
        });
        assert_eq!(value.await.unwrap(), 3);
    }
}
