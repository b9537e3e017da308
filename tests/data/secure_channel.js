// A put and a get over TLS with the files that `stead cert` makes.
//
// Arguments: a target, a tenant, and the files of the CA, of a certificate and of its key. Prints the value that was read.

const fs = require('fs');
const grpc = require('@grpc/grpc-js'), loader = require('@grpc/proto-loader');

const [target, tenant, ca, certificate, key] = process.argv.slice(2);
const credentials = grpc.credentials.createSsl(...[ca, key, certificate].map((file) => fs.readFileSync(file)));
const proto = loader.loadSync('stead/v1/kv.proto', { includeDirs: ['.'], keepCase: true, longs: String, oneofs: true });
const KvService = grpc.loadPackageDefinition(proto).stead.v1.KvService;
const store = new KvService(target, credentials);

const call = (method, request) => new Promise((done, failed) => store[method](
  request, { deadline: Date.now() + 30_000 }, (error, answer) => (error ? failed(error) : done(answer))));

(async () => {
  await call('Put', { tenant, key: Buffer.from('secure'), value: Buffer.from('over TLS') });
  const { item } = await call('Get', { tenant, key: Buffer.from('secure') });
  console.log(item.value.toString());
  store.close();
})();
