//! The text of `pyreplica --help`.

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
  pyreplica copy [PAIR]            fill a slave while clients use the master
  pyreplica check-config [PAIRS]   check config files, without servers
  pyreplica doctor [PAIRS]         check everything that replication needs
  pyreplica status [PAIRS]         show the state of each pair
  pyreplica compare [PAIRS]        check whether both sides have the same rows
  pyreplica repair PAIR            make the slave's rows equal to the master's
  pyreplica pending [PAIRS]        show the changes that wait, as SQL
  pyreplica skip ID... [PAIR]      skip changes: they are not replayed
  pyreplica retry [ID...] [PAIR]   retry the transactions in quarantine
  pyreplica pause [PAIRS]          pause replay of pairs or of single tables
  pyreplica resume [PAIRS]         resume it
  pyreplica switchover PAIR        make the slave the master, and back
  pyreplica failover PAIR          make the slave the master of a dead one
  pyreplica failback PAIR          make the former master the slave
  pyreplica protect [PAIRS]        let nobody but the daemon write to a slave
  pyreplica unprotect [PAIRS]      end that
  pyreplica uninstall DSN          take pyreplica away from a database
  pyreplica sample                 print a config file that explains every key
  pyreplica sql [SCRIPT]           print an SQL script
  pyreplica man [PAGE]             print a page of the manual
  pyreplica completion [SHELL]     print what completes command lines
  pyreplica help [VERB]            explain a verb

PAIRS are named as for replication: FILE.conf, DIR, DSN0 DSN1 or nothing. The
verb comes first. For a file that has the name of a verb, write ./VERB.

options of replication:
  --once        replay what is pending, then end (for cron)
  --log FILE    write the log to FILE (default: stdout)
  --log-format FORMAT
                original: NAME Sun Jun  1 14:52:32 2008 MESSAGE (the default);
                iso: the time as 2008-06-01T14:52:32.000+02:00; syslog: no time,
                and the severity in front as <4>, for journald (the default if
                stdout is the journal) and for logger --prio-prefix
  --user NAME   run as this user, if root starts the process
  --debug N     0 nothing but warnings and errors, 1 what is being done,
                2 the statements and their values too, 3 very verbose
                (default: DEBUG_LEVEL of the config file, or 1)
  -h, --help    print this
  -V, --version print the version, the commit and the compiler

A DSN is a connection string as for psql: 'dbname=shop host=db user=joe' or
postgresql://joe@db/shop. What it leaves out comes from PGHOST, PGPASSWORD and
similar variables, and from ~/.pgpass.

At SIGTERM or Ctrl-C the process finishes or rolls back the current batch, then
it exits. At a second one it exits at once. Nothing is lost in either case. At
SIGHUP it reopens the log file and reads the config files again: it starts new
pairs, ends removed ones and restarts changed ones; all others go on.

example:
  pyreplica 'dbname=shop host=db1' 'dbname=shop host=db2'

exit codes (of several pairs that failed, the highest):
  0 success, or stopped by a signal    4 the master, or the way to it
  1 a bug in pyreplica                 5 the slave, or the way to it
  2 wrong usage                        6 a change that cannot be replayed
  3 wrong config file or DSN,          7 another daemon replicates this pair,
    or a file cannot be written          or it is paused
verbs have these too:
  8 nothing worse than a warning       130 interrupted before the end
  9 something is wrong
";
