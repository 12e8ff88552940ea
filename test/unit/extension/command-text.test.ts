import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  COMMAND_VARIABLES,
  type CommandVariable,
  fillIn,
  isFault,
  readCommand,
  shellQuoted,
} from '../../../src/extension/command-text.js';

const VALUES = { SUBNET: '10.5.2.0/24', PUBLIC_IP: '192.0.2.2' };

const words = (text: string): readonly string[] => {
  const read = readCommand(text, COMMAND_VARIABLES);
  assert.ok(!isFault(read), isFault(read) ? read.fault : '');
  return fillIn(read, VALUES);
};

const fault = (
  text: string,
  variables: readonly CommandVariable[] = COMMAND_VARIABLES,
): { readonly fault: string; readonly hint: string } => {
  const read = readCommand(text, variables);
  assert.ok(isFault(read), `${text} is read`);
  return read;
};

describe('command text', () => {
  for (const [text, ...expected] of [
    ['ip route add $SUBNET via $PUBLIC_IP', 'ip', 'route', 'add', '10.5.2.0/24', 'via', '192.0.2.2'],
    ['  a\t b  ', 'a', 'b'],
    ['a ${SUBNET}x x$SUBNET.y', 'a', '10.5.2.0/24x', 'x10.5.2.0/24.y'],
    ['a "b $SUBNET" \'c $SUBNET\'', 'a', 'b 10.5.2.0/24', 'c $SUBNET'],
    [String.raw`a b\ c \$SUBNET "\$ \" \\ \x" \'`, 'a', 'b c', '$SUBNET', String.raw`$ " \ \x`, "'"],
    ['a $IPV6SUBNET "$IPV6SUBNET" \'\' b', 'a', '', '', 'b'],
    ['a $ "$" b=c {d} e#f g~', 'a', '$', '$', 'b=c', '{d}', 'e#f', 'g~'],
    ["sh -c 'ip route add $SUBNET; true'", 'sh', '-c', 'ip route add $SUBNET; true'],
  ] as const) {
    it(`reads ${text} as a shell does`, () => {
      assert.deepEqual(words(text), expected);
      const script = `for word in ${text}; do printf '%s\\0' "$word"; done`;
      const env = { ...VALUES, PATH: process.env['PATH'] };
      const said = execFileSync('sh', ['-fc', script], { env, encoding: 'utf8' });
      assert.deepEqual(said.split('\0').slice(0, -1), expected);
    });
  }

  it('keeps what a variable stands for in one word, whatever it is', () => {
    const read = readCommand('echo $SUBNET', COMMAND_VARIABLES);
    assert.ok(!isFault(read));
    assert.deepEqual(fillIn(read, { SUBNET: '; rm -rf / $(x) *' }), ['echo', '; rm -rf / $(x) *']);
  });

  for (const text of [
    ...['a | b', 'a && b', 'a; b', 'a > b', 'a 2>/dev/null', 'a < b', 'a &', '(a)', 'a `b`', 'a "`b`"', 'a $(b)'],
    ...['a "$(b)"', 'a *', 'a b?', 'a [b]', 'a\nb', '~/a', 'a ~', '# a', 'a $1', 'a $$', 'a ${SUBNET%/*}', 'a $?'],
    ...['export A=b', 'A=b c', 'read A', 'cd /', 'if a', '. a', '"export" A'],
  ]) {
    it(`refuses ${JSON.stringify(text)} and says what to write, which a shell takes for the same`, () => {
      const { fault: why, hint } = fault(text);
      assert.match(why, /^it has .*, and commands are run without a shell$/);
      assert.equal(hint, `write ${JSON.stringify(`sh -c ${shellQuoted(text)}`)}`);
      assert.deepEqual(words(JSON.parse(hint.slice('write '.length)) as string), ['sh', '-c', text]);
    });
  }

  it('quotes a text with quotes for a shell', () => {
    const text = `cut -d'/' -f 1 "$a" \\`;
    assert.equal(execFileSync('sh', ['-c', `printf %s ${shellQuoted(text)}`], { encoding: 'utf8' }), text);
  });

  it('refuses a variable that the command is not told', () => {
    const { fault: why, hint } = fault('ip link add $NAME', ['SUBNET', 'PUBLIC_IP']);
    assert.equal(why, 'it names $NAME, which it is not told');
    assert.match(hint, /^it is told \$SUBNET, \$PUBLIC_IP; .*"sh -c 'ip link add \$NAME'"$/);
    assert.match(fault('a $SUBNET', []).hint, /^it is told none;/);
  });

  it('refuses a quote that is not closed', () => {
    assert.equal(fault("a 'b").fault, "a quote ' in it is not closed");
    assert.equal(fault('a "b').fault, 'a quote " in it is not closed');
  });
});
