//! What `--help` prints.

pub(super) const MAIN: &str = "\
pyreplica replicates PostgreSQL databases from a master to a slave, by triggers

usage:
  pyreplica [OPTIONS] DSN0 DSN1    replicate from master DSN0 to slave DSN1
  pyreplica [OPTIONS] FILE.conf... replicate one pair for each config file
  pyreplica [OPTIONS] DIR          replicate one pair for each *.conf in DIR
  pyreplica [OPTIONS]              take DSN0 and DSN1 from the environment;
                                   without them, DIR is /etc/pyreplica
                                   (C:/pyreplica on Windows)
  pyreplica VERB ...               do one of these:

verbs:
  pyreplica install DSN            prepare the master: log table and triggers
  pyreplica copy [PAIR]            fill a slave while the master works
  pyreplica doctor [PAIRS]         check everything that replication needs
  pyreplica status [PAIRS]         tell how each pair is doing
  pyreplica compare [PAIRS]        are both sides equal, row by row?
  pyreplica repair PAIR            make the slave's rows what the master's are
  pyreplica pending [PAIRS]        show what waits to be replayed, as SQL
  pyreplica skip ID... [PAIR]      give changes up
  pyreplica retry [ID...] [PAIR]   try what is in quarantine again
  pyreplica pause [PAIRS]          hold pairs, or single tables, back
  pyreplica resume [PAIRS]         let them go on
  pyreplica help [VERB]            explain it

PAIRS are named as for replication: FILE.conf, DIR, DSN0 DSN1 or nothing. The
verb comes first; a file of the same name as a verb is ./VERB.

options of replication:
  --once        replay what is pending, then end (for cron)
  --log FILE    write the log to FILE (default: stdout)
  --user NAME   started as root: do everything as this user
  --debug N     0 nothing but warnings and errors, 1 what is being done,
                2 the statements too, 3 very verbose (default: DEBUG_LEVEL
                of the config file, or 2)
  -h, --help    print this
  -V, --version print the version

A DSN is what psql takes: 'dbname=shop host=db user=joe' or
postgresql://joe@db/shop. What it leaves out comes from PGHOST, PGPASSWORD and
their kin, and from ~/.pgpass.

SIGTERM or Ctrl-C ends the batch in hand, then the process; a second one ends
it at once, and nothing is lost either way. SIGHUP reopens the log file and
reads the config files again: new pairs start, removed ones end, changed ones
are started anew, all others are left alone.

example:
  pyreplica 'dbname=shop host=db1' 'dbname=shop host=db2'

exit codes (of several pairs that failed, the highest):
  0 success, or stopped by a signal    4 the master, or the way to it
  1 a fault of pyreplica's own         5 the slave, or the way to it
  2 wrong usage                        6 a change that cannot be replayed
  3 wrong config file or DSN           7 another daemon replicates this pair,
                                         or it is paused
of verbs, beside these:
  8 nothing worse than a warning       130 interrupted, before the end
  9 something was found to be wrong
";
