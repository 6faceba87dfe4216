// node's ssh2 as a client: exit status, both directions, sftp if PEER_SFTP says yes.
// Arguments: host port login key host-key source uploaded downloaded

'use strict';
const assert = require('assert');
const fs = require('fs');
const { Client } = require('ssh2');

const [host, port, username, key, hostKey, source, uploaded, downloaded] = process.argv.slice(2);
const client = new Client();

function exec(command, input, output) {
  return new Promise((resolve, reject) => {
    client.exec(command, (fault, stream) => {
      if (fault) return reject(fault);
      const out = [];
      let status;
      if (output) stream.pipe(output);
      else stream.on('data', (block) => out.push(block));
      stream.stderr.resume();
      stream.on('exit', (code) => { status = code; });
      stream.on('close', () => resolve({ status, out: Buffer.concat(out).toString() }));
      if (input) input.pipe(stream);
      else stream.end();
    });
  });
}

async function work() {
  const answer = await exec('echo to-out; exit 7');
  assert.deepStrictEqual(answer, { status: 7, out: 'to-out\n' });
  const sent = await exec(`cat > ${uploaded}`, fs.createReadStream(source));
  assert.strictEqual(sent.status, 0);
  const got = await exec(`cat ${source}`, null, fs.createWriteStream(downloaded));
  assert.strictEqual(got.status, 0);
  if (process.env.PEER_SFTP === 'yes') await sftp();
  client.end();
  console.log('done');
}

function sftp() {
  return new Promise((resolve, reject) => {
    client.sftp((fault, sftp) => {
      if (fault) return reject(fault);
      sftp.fastPut(source, `${uploaded}.sftp`, (fault) => {
        if (fault) return reject(fault);
        sftp.fastGet(`${uploaded}.sftp`, `${downloaded}.sftp`, (fault) => (fault ? reject(fault) : resolve()));
      });
    });
  });
}

client.on('ready', () => work().catch((fault) => { console.error(fault); process.exit(1); }));
client.on('error', (fault) => { console.error(fault); process.exit(1); });
client.connect({
  host, port: Number(port), username, privateKey: fs.readFileSync(key), readyTimeout: 30000,
  hostVerifier: (offered) => offered.equals(Buffer.from(hostKey.split(' ')[1], 'base64')),
});
