// Package credential mints and checks the passwords that GetClusterCredentials returns.
// A password is a signed statement of the grant: a CBOR Web Token (CWT, RFC 8392) in
// COSE_Sign1 (RFC 9052) in base64url without padding, so that URLs, .pgpass, connection
// strings and shells need no quoting. Nothing is stored: after a restart, or at a
// second gateway with the same keyring, every password still works.
//
// There is exactly one password for a grant and a key, and any other string is refused:
// CBOR uses the core deterministic encoding (RFC 8949 section 4.2.1), Ed25519 has one
// signature for a message, unused bits of base64 are zero, and line breaks are not
// allowed. A password has at most 4096 characters; 300 are typical.
//
// # Format
//
// In the diagnostic notation of RFC 8949 section 8, with the claims of the example:
//
//	61(                                  / CWT /
//	  18([                               / COSE_Sign1 /
//	    << {
//	      1: -8,                         / alg: EdDSA, always Ed25519 /
//	      4: h'a3f82ed3e8f061aa'         / kid: 8 bytes, see package keyring /
//	    } >>,
//	    {},                              / unprotected: always empty /
//	    << {
//	      2: "arn:aws:iam::123456789012:user/ana",   / sub: the principal /
//	      3: "examplecluster",           / aud: the cluster /
//	      4: 1767269700,                 / exp: refused from this second on /
//	      6: 1767268800,                 / iat: at most an hour before exp /
//	      7: h'019b77f15000d157b6c2f1178ec913b8',    / cti: the identifier, a ULID /
//	      -65537: "alice",               / database user /
//	      -65538: "dev",                 / database; absent: any /
//	      -65539: ["analysts", "finance"],   / groups, in order; absent: none /
//	      -65540: true                   / make the user; absent: false /
//	                                     / -65541: 1: an identity; absent: a database user /
//	    } >>,
//	    h'98bc631ef0a1cbbe…63db0c'       / signature, 64 bytes /
//	  ])
//	)
//
// The signature is that of Sig_structure with "daypass database credential 1" as external_aad, so
// that it is not valid for any other purpose:
//
//	[ "Signature1", h'a201270448a3f82ed3e8f061aa',
//	  'daypass database credential 1', h'a9027822…03f5' ]
//
// Integers are in their shortest form, map keys in bytewise order of their encoding
// (2, 3, 4, 6, 7, -65537, …). A claim at its default is absent, and no other claims
// are allowed. There is no issuer (iss): the key says who signed, and a keyring
// belongs to one installation. Key -65541 (kind) 1 marks the answer to
// GetClusterCredentialsWithIAM; its database user begins with "IAM:" or "IAMR:" and
// -65540 is true. The whole example, with its key, is in testdata.
package credential
