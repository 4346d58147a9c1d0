//! A small `ec2` command, to see the crate at work.
//!
//! Credentials and region come from where Amazon's own tools look: the environment, `~/.aws`, the machine's role.
//!
//! ```text
//! ec2 ls [KEY=VALUE ...]              instances, of these tags
//! ec2 image arm64|x86_64              the newest Ubuntu LTS
//! ec2 price TYPE ...                  today's spot prices
//! ec2 launch IMAGE TYPE TOKEN [KEY=VALUE ...]
//! ec2 terminate ID ...
//! ```

use sigv4_ec2::{Architecture, Chain, Client, Environment, Filter, RunInstances, SystemClock};
use std::{env, process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let region = Chain::new(Environment::of_process(), None, Arc::new(SystemClock::new())).region()?;
    let client = Client::builder(region.ok_or("no region: set AWS_REGION")?).build()?;
    match words {
        [verb, tags @ ..] if verb == "ls" => list(&client, tags)?,
        [verb, architecture] if verb == "image" => {
            let image = client.newest_ubuntu_lts(&Architecture::parse(architecture))?.ok_or("there is none")?;
            println!("{} {}", image.id, image.name);
        }
        [verb, types @ ..] if verb == "price" => {
            for price in client.spot_prices(types)? {
                println!("{} {} {} USD/h", price.instance_type, price.zone, price.price);
            }
        }
        [verb, image, kind, token, tags @ ..] if verb == "launch" => {
            let tags = pairs(tags)?.into_iter().collect();
            for instance in client.run_instances(&RunInstances { tags, ..RunInstances::new(image, kind, token) })? {
                println!("{} {}", instance.id, instance.state);
            }
        }
        [verb, ids @ ..] if verb == "terminate" => {
            for change in client.terminate_instances(ids)? {
                println!("{} {} -> {}", change.id, change.previous, change.current);
            }
        }
        _ => {
            return Err(
                "usage: ec2 ls [KEY=VALUE ...] | image ARCHITECTURE | price TYPE ... | launch IMAGE TYPE TOKEN | terminate ID ...".into()
            );
        }
    }
    Ok(())
}

fn list(client: &Client, tags: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let filters: Vec<Filter> = pairs(tags)?.iter().map(|(key, value)| Filter::tag(key, value)).collect();
    for instance in client.describe_instances(&[], &filters)? {
        let address = instance.public_address.or(instance.private_address).map(|address| address.to_string());
        let name = instance.tags.get("Name").map_or("-", String::as_str);
        println!("{} {} {} {} {name}", instance.id, instance.state, instance.instance_type, address.as_deref().unwrap_or("-"));
    }
    Ok(())
}

fn pairs(words: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}
