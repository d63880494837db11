//! Topics as streams: the commands that do not need a group.

use super::commands;
use super::stream_info::{xinfo, xlen};
use super::stream_read::{xrange, xread, xrevrange};
use super::stream_write::{xadd, xdel, xsetid, xtrim};

commands! { "stream":
    "XADD" -5 (Write Fast) (1 1 1) "Appends an entry." => xadd;
    "XDEL" -3 (Write Fast) (1 1 1) "Refused: a log does not give single entries back." => xdel;
    "XINFO" -2 (ReadOnly) (2 2 1) "Looks at a stream, its groups or their consumers." => xinfo;
    "XLEN" 2 (ReadOnly Fast) (1 1 1) "Returns how many offsets the stream holds." => xlen;
    "XRANGE" -4 (ReadOnly) (1 1 1) "Returns the entries of a range." => xrange;
    "XREAD" -4 (ReadOnly Blocking MovableKeys) (0 0 0) "Returns entries behind the given ones, waiting for them." => xread;
    "XREVRANGE" -4 (ReadOnly) (1 1 1) "Returns the entries of a range, newest first." => xrevrange;
    "XSETID" -3 (Write Fast) (1 1 1) "Refused: the log numbers its entries." => xsetid;
    "XTRIM" -4 (Write) (1 1 1) "Lets the oldest entries go." => xtrim;
}
