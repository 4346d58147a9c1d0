//! Where a region's services answer.
//!
//! Regions lie in partitions that share nothing, not even the domain. Names follow AWS's "endpoints.json": the region's
//! first letters tell the partition, so a region that is opened tomorrow works today.

/// Who is asked, and what the signature names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The whole address, with a path.
    pub(crate) url: String,
    /// The region that signs, which is not always the one that is meant: IAM has one for each partition.
    pub(crate) region: String,
    /// `ec2` or `iam`.
    pub(crate) service: &'static str,
}

/// A family of regions with accounts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// As it stands in an ARN: `aws`, `aws-cn`, `aws-us-gov` …
    pub(crate) name: &'static str,
    domain: &'static str,
    iam_host: &'static str,
    iam_region: &'static str,
}

const AWS: Partition = partition("aws", "amazonaws.com", "iam.amazonaws.com", "us-east-1");

/// First letters of a region, and where it lies. The order matters: `us-isob-` begins as `us-iso` does.
const PARTITIONS: [(&str, Partition); 7] = [
    ("cn-", partition("aws-cn", "amazonaws.com.cn", "iam.cn-north-1.amazonaws.com.cn", "cn-north-1")),
    ("us-gov-", partition("aws-us-gov", "amazonaws.com", "iam.us-gov.amazonaws.com", "us-gov-west-1")),
    ("us-isob-", partition("aws-iso-b", "sc2s.sgov.gov", "iam.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1")),
    ("us-isof-", partition("aws-iso-f", "csp.hci.ic.gov", "iam.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1")),
    ("us-iso-", partition("aws-iso", "c2s.ic.gov", "iam.us-iso-east-1.c2s.ic.gov", "us-iso-east-1")),
    ("eu-isoe-", partition("aws-iso-e", "cloud.adc-e.uk", "iam.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1")),
    ("eusc-", partition("aws-eusc", "amazonaws.eu", "iam.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1")),
];

const fn partition(name: &'static str, domain: &'static str, iam_host: &'static str, iam_region: &'static str) -> Partition {
    Partition { name, domain, iam_host, iam_region }
}

impl Partition {
    pub(crate) fn of(region: &str) -> Partition {
        PARTITIONS.iter().find(|(start, _)| region.starts_with(start)).map_or(AWS, |(_, partition)| *partition)
    }
}

/// `custom` replaces the address, never the region.
pub(crate) fn ec2(region: &str, custom: Option<&str>) -> Endpoint {
    let url = custom.map_or_else(|| format!("https://ec2.{region}.{}/", Partition::of(region).domain), with_path);
    Endpoint { url, region: region.to_owned(), service: "ec2" }
}

pub(crate) fn iam(region: &str, custom: Option<&str>) -> Endpoint {
    let partition = Partition::of(region);
    let url = custom.map_or_else(|| format!("https://{}/", partition.iam_host), with_path);
    Endpoint { url, region: partition.iam_region.to_owned(), service: "iam" }
}

/// What is signed is what is sent, and an HTTP request always has a path.
fn with_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.contains('/') { url.to_owned() } else { format!("{url}/") }
}

/// Letters, digits and dashes: a region becomes part of a host's name.
pub(crate) fn is_region(region: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&region.len()) && region.bytes().all(fits) && !region.starts_with('-') && !region.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_addresses() {
        let table = [
            ("eu-central-1", "https://ec2.eu-central-1.amazonaws.com/", "https://iam.amazonaws.com/", "us-east-1"),
            ("cn-northwest-1", "https://ec2.cn-northwest-1.amazonaws.com.cn/", "https://iam.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
            ("us-gov-east-1", "https://ec2.us-gov-east-1.amazonaws.com/", "https://iam.us-gov.amazonaws.com/", "us-gov-west-1"),
            ("us-isob-east-1", "https://ec2.us-isob-east-1.sc2s.sgov.gov/", "https://iam.us-isob-east-1.sc2s.sgov.gov/", "us-isob-east-1"),
        ];
        for (region, ec2_url, iam_url, iam_region) in table {
            assert_eq!(ec2(region, None), Endpoint { url: ec2_url.to_owned(), region: region.to_owned(), service: "ec2" });
            assert_eq!(iam(region, None), Endpoint { url: iam_url.to_owned(), region: iam_region.to_owned(), service: "iam" });
        }
    }

    #[test]
    fn a_custom_address_gets_a_path_and_keeps_the_region() {
        let endpoint = ec2("us-east-1", Some("http://127.0.0.1:5000"));
        assert_eq!((endpoint.url.as_str(), endpoint.region.as_str()), ("http://127.0.0.1:5000/", "us-east-1"));
        assert_eq!(ec2("us-east-1", Some("http://127.0.0.1:5000/api")).url, "http://127.0.0.1:5000/api");
    }

    #[test]
    fn a_region_cannot_smuggle_a_host() {
        assert!(is_region("ap-southeast-3"));
        for wrong in ["", "evil.example/", "EU-WEST-1", "a b", "-a", "a-", "a@b"] {
            assert!(!is_region(wrong), "{wrong}");
        }
    }
}
