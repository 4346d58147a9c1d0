//! What machines cost, about: a small table, so that nobody is surprised. The bill is Amazon's.
//!
//! Linux on demand in us-east-1, US dollars, as published in June 2025 (aws.amazon.com/ec2/pricing, "On-Demand", and
//! aws.amazon.com/ebs/pricing, aws.amazon.com/vpc/pricing). Other regions cost up to a third more.

pub const AS_OF: &str = "us-east-1, June 2025";
const HOURS_A_MONTH: f64 = 730.0;
/// Each public IPv4 address, attached or not.
const ADDRESS_AN_HOUR: f64 = 0.005;
/// One GiB of gp3.
const GIB_A_MONTH: f64 = 0.08;

const AN_HOUR: [(&str, f64); 17] = [
    ("t4g.nano", 0.0042),
    ("t4g.micro", 0.0084),
    ("t4g.small", 0.0168),
    ("t4g.medium", 0.0336),
    ("t4g.large", 0.0672),
    ("t3.nano", 0.0052),
    ("t3.micro", 0.0104),
    ("t3.small", 0.0208),
    ("t3.medium", 0.0416),
    ("t3a.nano", 0.0047),
    ("t3a.micro", 0.0094),
    ("t3a.small", 0.0188),
    ("t3a.medium", 0.0376),
    ("c7g.medium", 0.0363),
    ("m7g.medium", 0.0408),
    ("c7g.large", 0.0725),
    ("m7g.large", 0.0816),
];

/// A month of one machine; `None` for a type that is not in the table.
pub fn machine(kind: &str) -> Option<f64> {
    AN_HOUR.iter().find(|(name, _)| *name == kind).map(|(_, price)| price * HOURS_A_MONTH)
}

pub fn disk(gib: u32) -> f64 {
    f64::from(gib) * GIB_A_MONTH
}

pub fn address() -> f64 {
    ADDRESS_AN_HOUR * HOURS_A_MONTH
}
