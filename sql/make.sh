#!/bin/sh
# Makes master-install.sql from its parts, master/*.sql, in the order of their numbers, with an empty line above each.
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
