// Relative to /docs, so that it also works below a prefix. validatorUrl: null keeps Swagger UI from
// sending the document to its public validator.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
