# Runs in the guest: programs of every day, checked against what they must print. One line a check,
# "ok NAME" or "not ok NAME: ...". The first argument is how much of the long ones to do, in per cent.
percent=${1:-100}
count() { echo $(($1 * percent / 100)); }
check() { # NAME FOUND WANTED
    if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: found '$2', wanted '$3'"; fi
}
cd /tmp || exit 1

# forks and execs by the thousand
n=$(count 2000) i=0 sum=0
while [ $i -lt "$n" ]; do
    sum=$((sum + $(busybox expr $i + 1)))
    i=$((i + 1))
done
check "fork and exec" $sum $((n * (n + 1) / 2))
n=$(count 2000) i=0
while [ $i -lt "$n" ]; do (exit $((i % 7))); [ $? -eq $((i % 7)) ] || break; i=$((i + 1)); done
check "subshells" $i "$n"
n=$(count 1000) i=0
while [ $i -lt "$n" ]; do /bin/busybox true || break; /bin/busybox false && break; i=$((i + 1)); done
check "true and false" $i "$n"
cat >script.sh <<'S'
[ "$1" -eq 0 ] && { echo bottom; exit 3; }
sh /tmp/script.sh $(($1 - 1)); exit $(($? + 1))
S
check "nested shells" "$(sh script.sh 50; echo $?)" "bottom
53"

# pipelines
check "pipeline" "$(seq 1 1000 | grep 7 | sed 's/7/x/g' | sort -r | head -n 3 | tr 'x' 'y' | tail -n 1)" yy8
check "long pipeline" "$(seq 1 5000 | cat | cat | cat | cat | cat | cat | cat | cat | wc -l)" 5000
check "yes and head" "$(yes | head -n 20000 | wc -c)" 40000
mkfifo fifo
(seq 1 100 >fifo) &
check "named pipe" "$(awk '{ s += $1 } END { print s }' <fifo)" 5050
wait

# data through every filter, against sums computed elsewhere
while read -r algorithm sum file; do
    check "$algorithm $file" "$(${algorithm}sum "$file" | cut -d' ' -f1)" "$sum"
done </tests/sums
for f in /tests/data/*; do
    check "gzip ${f##*/}" "$(gzip -c "$f" | gunzip -c | md5sum)" "$(md5sum <"$f")"
done
check "bzip2" "$(head -c 100000 /tests/data/mixed | bzip2 -c | bunzip2 -c | md5sum)" "$(head -c 100000 /tests/data/mixed | md5sum)"
mb=$(count 32)
dd if=/dev/zero of=zeros bs=1M count="$mb" 2>/dev/null
check "dd" "$(wc -c <zeros)" $((mb * 1048576))
check "dd and cmp" "$(dd if=zeros bs=4096 2>/dev/null | cmp - zeros && echo same)" same
dd if=/dev/urandom of=noise bs=64k count=$((mb)) 2>/dev/null
check "random data survives a copy" "$(cp noise copy && sync && cmp noise copy && echo same)" same
check "random data is not compressible" "$([ "$(gzip -c noise | wc -c)" -ge "$(wc -c <noise)" ] && echo so)" so
check "xxd and back" "$(head -c 5000 noise | hexdump -v -e '1/1 "%02x"' | wc -c)" 10000
check "base64" "$(base64 <copy | base64 -d | md5sum)" "$(md5sum <noise)"
rm -f zeros noise copy
tar -cf t.tar -C /tests data && mkdir -p out && tar -xf t.tar -C out
check "tar" "$(cat out/data/* | md5sum)" "$(cat /tests/data/* | md5sum)"
check "cpio" "$(cd /tests && find data | sort | cpio -o -H newc 2>/dev/null | cpio -t 2>/dev/null | wc -l)" "$(find /tests/data | wc -l)"

# awk, with floating point
check "awk sum of squares" "$(awk 'BEGIN { for (i = 1; i <= 10000; i++) s += i * i; print s }')" 333383335000
check "awk floating point" "$(awk 'BEGIN { printf "%.15f %.12e %.10g %d", 1 / 3, 1e300 * 1e-7, 2 / 7 * 1e9, 1e9 / 7 }')" \
    "0.333333333333333 1.000000000000e+293 285714285.7 142857142"
check "awk series" "$(awk -v n="$(count 200000)" 'BEGIN { for (i = 0; i < 200000 && i < n; i++) s += (i % 2 ? -1 : 1) / (2 * i + 1); print (s * 4 > 3.14 && s * 4 < 3.1418) }')" 1
check "awk arrays" "$(awk 'BEGIN { for (i = 0; i < 20000; i++) a[(i * 7919) % 1009]++; for (k in a) { n++; m += a[k] } print n, m }')" "1009 20000"
check "bc" "$(echo '2^200; scale=30; 1/7' | bc | tr '\n' ' ')" \
    "1606938044258990275541962092341162602522202993782792835301376 .142857142857142857142857142857 "

# sort
check "sort" "$(awk 'BEGIN { for (i = 0; i < 20000; i++) print (i * 7919) % 20011 }' | sort -n | awk '$1 < last { bad++ } { last = $1; n++ } END { print n, bad + 0 }')" "20000 0"
check "sort and uniq" "$(awk 'BEGIN { for (i = 0; i < 10000; i++) print i % 100 }' | sort | uniq -c | awk '$1 != 100 { bad++ } END { print NR, bad + 0 }')" "100 0"
check "sed" "$(seq 1 100 | sed -n 's/^\(.\)\(.\)$/\2\1/p' | sort -n | tail -n 1)" 99
check "grep" "$(seq 1 10000 | grep -cE '^(.)(.)\2\1$')" 90

# files
mkdir tree && cd tree || exit 1
for a in 0 1 2 3 4 5 6 7 8 9; do
    mkdir -p $a/x/y
    for b in 0 1 2 3 4 5 6 7 8 9; do echo $a$b >$a/x/y/$b; done
done
check "tree" "$(find . -type f | wc -l) $(find . -type f -exec cat {} + | awk '{ s += $1 } END { print s }')" "100 4950"
check "links" "$(ln -s 3/x/y/4 link; ln 3/x/y/5 hard; echo 99 >hard; cat link 3/x/y/5 | tr '\n' ' ')" "34 99 "
check "rename" "$(mv 3 drei; ls -d drei 2>&1; [ -e 3 ] || echo gone)" "drei
gone"
cd .. && rm -rf tree out
check "removed" "$([ -e tree ] || echo gone)" gone
mkdir m && mount -t tmpfs -o size=1m tmpfs m
check "full file system" "$(dd if=/dev/zero of=m/f bs=64k count=100 2>/dev/null || echo full; wc -c <m/f)" "full
1048576"
umount m

# processes and signals
sh -c 'trap "echo caught; exit 5" TERM; while :; do sleep 0.05; done' >trapped &
pid=$!
sleep 0.3
kill $pid
wait $pid
check "trap" "$? $(cat trapped)" "5 caught"
sleep 100 &
pid=$!
kill -9 $pid
wait $pid 2>/dev/null
check "kill" $? 137
sh -c 'kill -SEGV $$' 2>/dev/null
check "killed by a signal" $? 139
check "timeout" "$(timeout 1 sleep 20; echo $?)" 143
for i in 1 2 3 4 5 6 7 8; do (sleep 0.2; echo $i >job.$i) & done
wait
check "background jobs" "$(cat job.* | tr -d '\n')" 12345678
check "stopped and continued" "$(sleep 100 & p=$!; kill -STOP $p; sleep 0.1; awk '{ printf $3 }' /proc/$p/stat; kill -CONT $p; sleep 0.1; awk '{ printf $3 }' /proc/$p/stat; kill $p)" TS
check "cpu limit" "$( (ulimit -t 1; while :; do :; done) >/dev/null 2>&1; echo $?)" 137
check "here document" "$(cat <<H
$((1 + 1)) $(echo two)
H
)" "2 two"
check "arithmetic" "$((0x7fffffff * 3)) $((-7 / 2)) $((-7 % 2)) $((1 << 40)) $((123456789012345 / 1000003))" \
    "6442450941 -3 -1 1099511627776 123456418"

# the network stack, over the loopback
(echo hello from the other side | nc -l -p 4000) &
sleep 0.3
check "tcp over loopback" "$(nc 127.0.0.1 4000 </dev/null)" "hello from the other side"
wait

# /proc, /sys
check "interrupts are counted" "$(a=$(awk '/timer|LOC/ { s += $2 } END { print s }' /proc/interrupts); sleep 0.3; b=$(awk '/timer|LOC/ { s += $2 } END { print s }' /proc/interrupts); [ "$b" -gt "$a" ] && echo more)" more
check "no errors counted" "$(awk '/^(ERR|MIS):/ { s += $2 } END { print s + 0 }' /proc/interrupts)" 0
check "uptime runs" "$(read -r a _ </proc/uptime; sleep 1.1; read -r b _ </proc/uptime; awk "BEGIN { print ($b - $a >= 1.0 && $b - $a < 1.6) }")" 1
echo "checks done"
