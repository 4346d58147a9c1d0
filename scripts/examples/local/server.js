// The program of the example service: Perl is on every Debian machine. A real service names its own program instead.
// The node tells it where to listen: DISCO_ADDRESS is the node's own, PORT the first port it assigned.
export const server = String.raw`
use strict; use warnings; use IO::Socket::INET;
$SIG{TERM} = sub { print "$ENV{DISCO_TASK} was asked to stop\n"; exit 0 };
$SIG{PIPE} = "IGNORE";
$| = 1;
my $door = IO::Socket::INET->new(LocalAddr => $ENV{DISCO_ADDRESS}, LocalPort => $ENV{PORT}, Listen => 64, ReuseAddr => 1)
  or die "cannot listen on $ENV{DISCO_ADDRESS}:$ENV{PORT}: $@\n";
print "$ENV{DISCO_TASK} listens on $ENV{DISCO_ADDRESS}:$ENV{PORT}\n";
while (1) {
  my $caller = $door->accept or next;
  my $request = <$caller> // "";
  while (my $line = <$caller>) { last if $line =~ /^\r?\n$/ }
  print "$ENV{DISCO_TASK} answers $request";
  my $body = "$ENV{GREETING} from $ENV{DISCO_TASK} on $ENV{DISCO_NODE_NAME}\n";
  print $caller "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
  close $caller;
}
`;
