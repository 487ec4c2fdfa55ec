// Alerts: the form, and messages that really arrive at an SMTP server and at a webhook on this host.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer as createHttp } from 'node:http';
import { createServer } from 'node:net';
import { axe, reads, shot, step, until, visit } from '../lib.mjs';

/** As much of SMTP as a message needs. */
function smtp(mails) {
  return createServer((socket) => {
    let text = '';
    let data = false;
    const say = (line) => socket.write(`${line}\r\n`);
    socket.on('error', () => {});
    say('220 test');
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (;;) {
        const end = text.indexOf(data ? '\r\n.\r\n' : '\r\n');
        if (end < 0) return;
        const part = text.slice(0, end);
        text = text.slice(end + (data ? 5 : 2));
        if (data) { mails.push(part); data = false; say('250 taken'); }
        else if (/^EHLO/i.test(part)) say('250 test');
        else if (/^DATA/i.test(part)) { data = true; say('354 go on'); }
        else if (/^QUIT/i.test(part)) { say('221 bye'); socket.end(); }
        else say('250 ok');
      }
    });
  });
}
const listening = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port)));

export async function alerts({ page }) {
  const SECRET = 'a-secret-of-the-signature';
  const mails = [];
  const hooks = [];
  const mail = smtp(mails);
  const hook = createHttp((request, answer) => {
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => { hooks.push({ headers: request.headers, body }); answer.end(); });
  });
  const [smtpPort, hookPort] = [await listening(mail), await listening(hook)];
  try {
    await step('alerts: settings by the form, a test message arrives by mail and by webhook', async () => {
      await visit(page, '/alerts');
      await page.getByRole('button', { name: 'Change', exact: true }).click();
      await axe(page, 'form of the alerts');
      const section = page.getByRole('region', { name: 'Who is told' });
      await section.getByRole('checkbox', { name: 'Send e-mail' }).check();
      await section.getByLabel('SMTP server').fill('127.0.0.1');
      await section.getByLabel('Port', { exact: true }).fill(String(smtpPort));
      await section.getByLabel('Encryption').selectOption('None');
      await section.getByLabel('From', { exact: true }).fill('lifeboat@example.com');
      await section.getByLabel('To (several with commas)').fill('ops@example.com, night@example.com');
      await section.getByRole('button', { name: 'Add a webhook' }).click();
      await section.getByLabel('Name', { exact: true }).fill('chat');
      await section.getByLabel('URL').fill(`http://127.0.0.1:${hookPort}/hook`);
      await section.getByLabel('Secret of the signature').fill(SECRET);
      await shot(page, 'alerts-form');
      await section.getByRole('button', { name: 'Save' }).click();
      await reads(section, /ops@example\.com, night@example\.com by 127\.0\.0\.1/);
      await section.getByRole('button', { name: 'Send a test message' }).click();
      await reads(section, /delivered[\s\S]*delivered/);
      await until('both have arrived', () => mails.length && hooks.length);
      assert.match(mails[0], /To: .*ops@example\.com/);
      const { headers, body } = hooks[0];
      const reckoned = createHmac('sha256', SECRET).update(`${headers['x-lifeboat-timestamp']}.${body}`).digest('hex');
      assert.equal(headers['x-lifeboat-signature'], `sha256=${reckoned}`);
      await shot(page, 'alerts-sent');
      // The secrets stay where they are and are not shown.
      await page.getByRole('button', { name: 'Change', exact: true }).click();
      assert.equal(await section.getByLabel('Secret of the signature').inputValue(), '');
      await section.getByRole('button', { name: 'Cancel' }).click();
    });
    await step('alerts: a receiver that does not answer is told with what to do', async () => {
      await new Promise((done) => { mail.close(done); mail.closeAllConnections?.(); });
      const section = page.getByRole('region', { name: 'Who is told' });
      await section.getByRole('button', { name: 'Send a test message' }).click();
      await reads(section, /What to do:/);
      await axe(page, 'a channel that fails');
      await page.getByRole('button', { name: 'Change', exact: true }).click();
      await section.getByRole('checkbox', { name: 'Send e-mail' }).uncheck();
      await section.getByRole('button', { name: 'Remove webhook chat' }).click();
      await section.getByRole('button', { name: 'Save' }).click();
      await reads(section, /Nobody is told of anything yet/);
    });
  } finally {
    mail.close();
    hook.closeAllConnections();
    hook.close();
  }
}
