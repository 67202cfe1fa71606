"""Headers `traceparent`, good and bad (W3C Trace Context)."""

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
OTHER = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
NOT_VALID = [
    "",
    "00",
    SAMPLED.upper(),
    SAMPLED + "-00",
    SAMPLED + " ",
    SAMPLED.replace("-", "_"),
    SAMPLED.replace(TRACE, "0" * 32),
    SAMPLED.replace(PARENT, "0" * 16),
    "ff" + SAMPLED[2:],
    "٠٠" + SAMPLED[2:],
    SAMPLED + "\n",
]
