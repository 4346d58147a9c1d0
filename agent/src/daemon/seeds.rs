//! Seeds: addresses and names as they are, and lists that lie in a file or behind an https URL.
//!
//! A list holds one seed a line, `#` begins a comment. It is read again each time somebody is asked, so that it may
//! change while a node waits; a list that cannot be read now is no error, the others may do.

use super::config::seed_address;
use crate::{
    drivers::helpers,
    model::limits::{SEED_LIST_BYTES_MAX, SEEDS_MAX},
};
use std::{fs::File, io::Read, time::Duration};

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a seed is a list, not an address.
pub fn is_list(seed: &str) -> bool {
    seed.contains("://")
}

/// All addresses, in order, each once.
pub async fn addresses(seeds: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for seed in seeds {
        let listed = match is_list(seed) {
            false => vec![seed.clone()],
            true => read(seed).await.unwrap_or_else(|why| {
                log::warn!("cannot read the seeds in {seed}: {why}");
                Vec::new()
            }),
        };
        for address in listed {
            if !all.contains(&address) && all.len() < SEEDS_MAX {
                all.push(address);
            }
        }
    }
    all
}

async fn read(url: &str) -> Result<Vec<String>, String> {
    let place = url.to_owned();
    let text = helpers::unblock(move || fetch(&place)).await?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    lines.map(|line| seed_address(line).ok_or_else(|| format!("`{:.80}` is no host:port", line.escape_debug()))).collect()
}

fn fetch(url: &str) -> Result<String, String> {
    let mut text = String::new();
    let most = SEED_LIST_BYTES_MAX as u64 + 1;
    if let Some(path) = url.strip_prefix("file://") {
        File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(|error| error.to_string())?;
    } else {
        let config = ureq::Agent::config_builder().https_only(true).timeout_global(Some(FETCH_TIMEOUT)).user_agent("disco");
        let mut answer = config.build().new_agent().get(url).call().map_err(|error| error.to_string())?;
        answer.body_mut().as_reader().take(most).read_to_string(&mut text).map_err(|error| error.to_string())?;
    }
    if text.len() > SEED_LIST_BYTES_MAX {
        return Err(format!("it is longer than {SEED_LIST_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line_and_one_that_cannot_be_is_passed_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = folder.path().join("seeds");
        std::fs::write(&list, "# ours\n10.0.0.1\nnode.example:99 # the second\n\n10.0.0.1:5080\n").expect("the disk works");
        let url = format!("file://{}", list.display());
        let seeds = ["10.0.0.9:5080".to_owned(), url, "file:///does/not/exist".into()];
        assert_eq!(smol::block_on(addresses(&seeds)), ["10.0.0.9:5080", "10.0.0.1:5080", "node.example:99"]);
        std::fs::write(&list, "not an address\n").expect("the disk works");
        assert_eq!(smol::block_on(addresses(&seeds)), ["10.0.0.9:5080"], "a list with a mistake is not half a list");
    }
}
