"""What must never be connected to, and the ways people have found to say it. Data only.

Addresses are of the IANA special-purpose registries, of the clouds' metadata services, and IPv4 inside IPv6.
"""

V4 = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata service
    "100.127.255.255",
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.254",
    "168.63.129.16",  # Azure's wire server
    "169.254.0.1",
    "169.254.169.254",  # metadata at most clouds
    "169.254.170.2",  # credentials of a container at AWS
    "172.16.0.1",
    "172.17.0.1",  # Docker's bridge
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",  # Oracle's metadata service
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
)

V6 = (
    "::",
    "::1",
    "::127.0.0.1",  # IPv4-compatible
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "::ffff:8.8.8.8",  # mapped: no name has one
    "64:ff9b::127.0.0.1",  # NAT64
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",  # NAT64 of one's own
    "100::1",  # discard
    "100:0:0:1::1",  # dummy
    "2001::1",  # Teredo
    "2001:0:7f00:1::1",
    "2001:2::1",  # benchmarks
    "2001:10::1",  # ORCHID
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::1",  # and of 169.254.169.254
    "2002:808:808::1",
    "2620:4f:8000::1",  # AS112
    "3fff::1",
    "5f00::1",  # segment routing
    "4000::1",  # not assigned
    "fc00::1",
    "fd00:ec2::254",  # AWS's metadata service
    "fdff:ffff::1",
    "fe80::1",
    "fe80::1%1",
    "2606:4700::1%1",  # a zone makes no sense on a global address
    "fe80::a9fe:a9fe",
    "fec0::1",  # site-local
    "feff::1",
    "ff02::1",
    "ff0e::1",
)

# Answers of a broken or hostile resolver that are no addresses at all.
NONSENSE = (
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "127.0.0.1 ",
    "127.0.0.1\n",
    "[::1]",
    "１.1.1.1",
)

PUBLIC = (
    "93.184.215.14",
    "8.8.8.8",
    "100.128.0.1",
    "172.32.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "2001:4860:4860::8888",
)

# Of these `not ipaddress.is_private` says, in every Python so far, that they are public.
MISSED_BY_IS_PRIVATE = (
    "100.64.0.1",
    "168.63.129.16",
    "192.88.99.1",
    "224.0.0.1",
    "239.1.1.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "ff02::1",
)

# Hosts that name this machine, or a network of one's own, to getaddrinfo, a browser or somebody's parser.
SPELLINGS = (
    "0",
    "0.0.0.0",
    "00000000000.0.0.0",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "2130706433",
    "02130706433",
    "4294967295",
    "4294967297",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0x0.0x0.0x1",
    "127.0.0.0x1",
    "0x",
    "127.0.0.1.",
    "127.0.0.1..",
    ".127.0.0.1",
    "127..1",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "127。0。0。1",
    "127%2e0%2e0%2e1",
    "%31%32%37.0.0.1",
    "loc%61lhost",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "localhost.",
    "LOCALHOST",
    "localhost",
    "127.0.0.1",
    "169.254.169.254",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::1%251]",
    "[fe80::1%25lo]",
    "[v1.::1]",
    "[127.0.0.1]",
    "[::1",
    "::1",
    "[[::1]]",
    "[::1].",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
)

# URLs that are none, or of which parsers disagree which host is meant. GOOD is a host that is open to us,
# EVIL is not.
CONFUSING = (
    "http://GOOD\\@EVIL/",
    "http://EVIL\\@GOOD/",
    "http://GOOD\\.EVIL/",
    "http:\\\\EVIL/",
    "http:/\\EVIL/",
    "http:EVIL/",
    "http:/EVIL/",
    "http:///EVIL/",
    "http:////EVIL/",
    "http://GOOD@EVIL/",
    "http://EVIL@GOOD/",
    "http://GOOD:80@EVIL/",
    "http://user:pw@GOOD/",
    "http://:@EVIL/",
    "http://@EVIL/",
    "http://GOOD@GOOD@EVIL/",
    "http://GOOD#@EVIL/",
    "http://EVIL#@GOOD/",
    "http://EVIL?@GOOD/",
    "http://EVIL;@GOOD/",
    "http://GOOD;EVIL/",
    "http://GOOD,EVIL/",
    "http://GOOD EVIL/",
    "http://GOOD\tEVIL/",
    "http://EVIL\r\nHost: GOOD/",
    "http://GOOD/ HTTP/1.1\r\nHost: EVIL/",
    "http://GOOD/\r\nX: y",
    "http://GOOD/\x00",
    "\thttp://EVIL/",
    " http://EVIL/",
    "http\n://EVIL/",
    "ht\ttp://EVIL/",
    "http://EVIL\u3002/",
    "http://GOOD\uff0fEVIL/",
    "http://GOOD\uff03@EVIL/",
    "http://GOOD\u2100EVIL/",
    "http://GOOD\u00ad/",
    "http://EVIL%00GOOD/",
    "http://EVIL%0aGOOD/",
    "http://EVIL%2fGOOD/",
    "http://EVIL%23@GOOD/",
    "http://[GOOD]EVIL/",
    "http://[::1]GOOD/",
    "http://GOOD[::1]/",
    "http://[::1]@GOOD/",
    "http://GOOD:80:80/",
    "http://GOOD:/",
    "http://GOOD:+80/",
    "http://GOOD:080/",
    "http://GOOD:8_0/",
    "http://GOOD:\uff18\uff10/",
    "http://GOOD:0/",
    "http://GOOD:65616/",
    "http://GOOD:99999/",
    "http://GOOD:-1/",
    "//EVIL/",
    "EVIL",
    "EVIL/",
    "",
    "http",
    "http:",
    "http://",
    "http://?",
    "https://#",
    "http://./",
    "http://../",
    "http://-/",
    "http://a..b/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 127 + "example/",
    "http://EVIL/" + "a" * 2048,
    "http://\ud800/",
    "hTTp+unix://EVIL/",
    "url:http://EVIL/",
    "URL=http://EVIL/",
    "file:///etc/passwd",
    "file://EVIL/etc/passwd",
    "ftp://EVIL/",
    "gopher://EVIL/_x",
    "dict://EVIL/",
    "ldap://EVIL/",
    "unix:/run/docker.sock",
    "http+unix://%2frun%2fdocker.sock/",
    "ws://EVIL/",
    "jar:http://EVIL/!/",
    "netdoc:///etc/passwd",
    "data:text/plain,hello",
    "javascript:alert(1)",
)
