//! LogStreams: the message log that one Linux server deserves.
