#!/bin/sh
# Makes master-install.sql from its parts, master/*.sql, in the order of their numbers, with an empty line above each; and
# master-install-ddl.sql from master-ddl/*.sql, with a query that the daemon uses too in the place of @shape@.
set -eu
cd "$(dirname "$0")"

{
    echo '-- Made from sql/master/*.sql by sql/make.sh: edit those parts, not this file.'
    for part in master/*.sql; do
        echo
        cat "$part"
    done
} >master-install.sql.new
mv master-install.sql.new master-install.sql

{
    echo '-- Made from sql/master-ddl/*.sql by sql/make.sh: edit those parts, not this file.'
    for part in master-ddl/*.sql; do
        echo
        sed -e '/^@shape@$/{' -e 'r query/shape.sql' -e 'd' -e '}' "$part"
    done
} >master-install-ddl.sql.new
mv master-install-ddl.sql.new master-install-ddl.sql
