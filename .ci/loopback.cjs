// Makes every TCP server of this process listen only on 127.0.0.1. kinesis-local has no setting for its address and listens on all.
'use strict';

const { Server } = require('node:net');

const host = '127.0.0.1';
const listen = Server.prototype.listen;

// listen(options, callback?) or listen(port, …, callback?); a call without a port, as for a Unix socket, stays as it is.
Server.prototype.listen = function (first, ...rest) {
  if (typeof first === 'object' && first !== null && first.port !== undefined) {
    return listen.call(this, { ...first, host }, ...rest);
  }
  if (first === undefined || typeof first === 'function' || Number.isInteger(Number(first ?? 0))) {
    const callback = [first, ...rest].find((argument) => typeof argument === 'function');
    return listen.call(this, { port: typeof first === 'function' ? 0 : Number(first ?? 0), host }, callback);
  }
  return listen.call(this, first, ...rest);
};
