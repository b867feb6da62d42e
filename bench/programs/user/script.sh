# 2000 short commands, as configure scripts are made of: BusyBox's own, each a fork and an exec.
# $1: a directory with links to it, if they are not on the PATH. Called by path, as the shell has some of them built in.
PATH=$1:$PATH
for command in echo cat cp cmp sed grep expr test mkdir rmdir rm; do
    path=$(which $command) || exit 1
    eval "$command=$path"
done
work=$(mktemp -d /dev/shm/script.XXXXXX) || exit 1
cd "$work" || exit 1
i=0
while [ $i -lt 200 ]; do
    $echo "line $i" >in
    $cat in >copy
    $cp copy other
    $cmp in other || exit 1
    $sed 's/line/row/' other >row
    $grep -q "row $i" row || exit 1
    $expr $i + 1 >number
    $test -s number || exit 1
    $mkdir d || exit 1
    $rmdir d || exit 1
    i=$((i + 1))
done
cd / && $rm -r "$work"
[ $i -eq 200 ]
